"""Container images without Docker and without a registry: built by buildah, kept as archives, imported into nodes.

An archive's name is a hash of everything that goes into it: the Dockerfile, the named inputs, the build arguments, the
base image. The build sees a copy of just those inputs, so that a file which is missing from the list fails the build
instead of making the cache lie.
"""

import hashlib
import os
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localcluster import base, containerd, paths, requirements
from localcluster.buildah import Buildah
from localcluster.commands import locked, say
from localcluster.errors import LocalClusterError

KEPT = 3
IGNORED = ("__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")


@dataclass(frozen=True)
class Recipe:
    """What to build.

    Attributes:
        reference: the image's name with its tag.
        dockerfile: path of the Dockerfile.
        context: directory that the inputs are relative to.
        inputs: files and directories that the Dockerfile copies.
        arguments: build arguments.
    """

    reference: str
    dockerfile: Path
    context: Path
    inputs: tuple[str, ...] = (".",)
    arguments: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> Iterator[Path]:
        """Yield all input files, relative to the context, in a fixed order."""
        found: set[Path] = set()
        for name in (*self.inputs, ".dockerignore"):
            path = self.context / name
            if path.is_dir():
                for directory, below, names in os.walk(path):
                    below[:] = [item for item in below if item not in IGNORED]
                    found.update((Path(directory) / item).relative_to(self.context) for item in names)
            elif path.exists():
                found.add(path.relative_to(self.context))
            elif name != ".dockerignore":
                raise LocalClusterError(f"input {name} of image {self.reference} does not exist in {self.context}")
        yield from sorted(found)

    def key(self, base_key: str) -> str:
        """Hash everything that goes into the image."""
        digest = hashlib.sha256(f"{base_key}\n{self.reference}\n{sorted(self.arguments.items())}\n".encode())
        for label, path in [
            ("Dockerfile", self.dockerfile),
            *((str(file), self.context / file) for file in self.files()),
        ]:
            content = path.read_bytes()
            digest.update(f"{label} {path.stat().st_mode & 0o111:o} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:24]


def build(recipe: Recipe) -> Path:
    """Return the image's archive; built unless the very same one was built before."""
    requirements.ensure()
    key = recipe.key(base.key())
    path = paths.cache("images", f"{key}.tar")
    with locked(paths.cache("images", "lock"), waiting_for="another image build"):
        if not path.exists():
            base_archive = base.build()
            started = time.monotonic()
            say(f"Building image {recipe.reference}")
            with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as scratch:
                context = Path(scratch) / "context"
                for file in recipe.files():
                    (context / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(recipe.context / file, context / file, follow_symlinks=False)
                buildah = Buildah(paths.cache("buildah"))
                buildah.import_base(base_archive, base.reference())
                arguments = {"BASE_IMAGE": base.reference(), **recipe.arguments}
                built = Path(scratch) / "image.tar"
                buildah.build(recipe.reference, recipe.dockerfile, context, arguments=arguments, target=built)
                built.rename(path)
            say(f"  image {recipe.reference}: {time.monotonic() - started:.0f} s, kept in {path}")
        pointer = _pointer(recipe.reference)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(key)
        prune(paths.cache("images"), recipe.reference)
    return path


def prune(directory: Path, reference: str, *, keep: int = KEPT) -> None:
    """Delete all but the newest archives of an image; a tag per source would otherwise fill the disk."""
    pointers = directory / "references"
    name = urllib.parse.quote(reference.rpartition(":")[0] + ":", safe="")
    ours = [path for path in pointers.iterdir() if path.name.startswith(name)]
    for old in sorted(ours, key=lambda path: path.stat().st_mtime_ns, reverse=True)[keep:]:
        old.unlink()
    used = {path.read_text() for path in pointers.iterdir()}
    for archive in directory.glob("*.tar"):
        if archive.stem not in used:
            archive.unlink()


def load(init: int, references: Sequence[str]) -> None:
    """Import images that were built here into a node, unless it has them.

    Raises:
        LocalClusterError: an image was never built.
    """
    keys = {reference: _key_of(reference) for reference in references}
    present = containerd.labelled(init)
    for reference, key in keys.items():
        if key in present:
            say(f"Image {reference} is on the node already")
            continue
        started = time.monotonic()
        containerd.load(init, paths.cache("images", f"{key}.tar"))
        containerd.label(init, reference, key)
        say(f"Image {reference} loaded in {time.monotonic() - started:.1f} s")


def load_archives(init: int, files: Sequence[Path]) -> None:
    """Import image archives into a node."""
    for path in files:
        containerd.load(init, path)


def _pointer(reference: str) -> Path:
    return paths.cache("images", "references", urllib.parse.quote(reference, safe=""))


def _key_of(reference: str) -> str:
    try:
        return _pointer(reference).read_text()
    except FileNotFoundError:
        raise LocalClusterError(
            f"image {reference} was not built here; `python -m localcluster image build --tag {reference} ...` does"
        ) from None
