"""The project's two images: what goes into them, and the tag that follows from it.

A tag is a hash of everything that the Dockerfile may copy, so an image under that tag never has to be built twice, and
a changed source never hides behind an old one.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Image:
    """One image: its name, its Dockerfile and the paths that it copies, relative to the repository."""

    name: str
    dockerfile: str
    inputs: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The tag for the sources as they are now."""
        digest = hashlib.sha256()
        for path in self.files():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(REPOSITORY)} {len(content)}\n".encode())
            digest.update(content)
        return f"dev-{digest.hexdigest()[:12]}"

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"{self.name}:{self.tag}"

    def files(self) -> Iterator[Path]:
        """Yield every file that goes into the image, in an order that depends on nothing else."""
        for name in sorted((*self.inputs, self.dockerfile, ".dockerignore")):
            path = REPOSITORY / name
            if path.is_dir():
                yield from sorted(
                    file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts
                )
            else:
                yield path


OPERATOR = Image(
    name="taskmaster-operator",
    dockerfile="operator/Dockerfile",
    inputs=(
        "LICENSE",
        "pyproject.toml",
        "requirements/build.txt",
        "requirements/operator.txt",
        "operator/taskmaster",
        "crds",
    ),
)
WORKER = Image(
    name="taskmaster-worker",
    dockerfile="worker-image/Dockerfile",
    inputs=(
        "LICENSE",
        "pyproject.toml",
        "requirements/build.txt",
        "requirements/worker.txt",
        "operator/taskmaster/__init__.py",
        "operator/taskmaster/logs.py",
        "operator/taskmaster/py.typed",
        "operator/taskmaster/api",
        "operator/taskmaster/core",
        "operator/taskmaster/kube",
        "worker-image/taskmaster_worker",
    ),
)
IMAGES = (OPERATOR, WORKER)
