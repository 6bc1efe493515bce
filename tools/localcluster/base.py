"""The base image of locally built images: a minimal Debian with Python, made from the machine's own package source.

It stands in for the public Python image that the Dockerfiles name by default, where no registry can be reached. The
mirror comes from the machine's apt settings at run time; nothing of it, and nothing else about the machine, stays in
the image.
"""

import hashlib
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from localcluster import archive, paths
from localcluster.commands import locked, run, say

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "tini")
APT = Path("/etc/apt")
TIMEOUT = 900.0
# What debootstrap copies from the machine or downloads only for itself, and what no container reads.
REMOVED = (
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/resolv.conf",
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "dev/*",
)


def key(suite: str = SUITE, packages: Sequence[str] = PACKAGES) -> str:
    """Hash what decides the content, this recipe included; Debian's point releases do not count."""
    recipe = [suite, platform.machine(), *sorted(packages), "without", *REMOVED, "with an empty etc/pip.conf"]
    return hashlib.sha256(" ".join(recipe).encode()).hexdigest()[:16]


def reference() -> str:
    """Return the image's name."""
    return f"localhost/taskmaster-base:{key()}"


def build() -> Path:
    """Return the image's archive; made at the first use, which takes a minute."""
    path = paths.cache("base", f"{key()}.tar")
    if path.exists():
        return path
    with locked(path.with_suffix(".lock"), waiting_for="the base image"):
        if not path.exists():
            started = time.monotonic()
            say(f"Making the base image: {SUITE} with {', '.join(PACKAGES)}")
            with tempfile.TemporaryDirectory(prefix=".build-", dir=path.parent) as scratch:
                _build(Path(scratch), path)
            say(f"  base image: {time.monotonic() - started:.0f} s")
    return path


def mirror(suite: str, apt: Path = APT) -> str | None:
    """Return where the machine's apt gets a suite's main component from, or None if it says nothing about it."""
    texts = [path.read_text() for path in sorted((apt / "sources.list.d").glob("*.sources"))]
    found = [uri for text in texts for uri in _from_stanzas(text, suite)]
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    found += [uri for path in lists if path.exists() for uri in _from_lines(path.read_text().splitlines(), suite)]
    return next(iter(found), None)


def _from_stanzas(text: str, suite: str) -> Iterable[str]:
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.lstrip().startswith("#") and ":" in line]
        fields = {name.strip().lower(): value.split() for name, _, value in (line.partition(":") for line in lines)}
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        if suite in fields.get("suites", []) and "main" in fields.get("components", []):
            yield from fields.get("uris", [])


def _from_lines(lines: Iterable[str], suite: str) -> Iterable[str]:
    for line in lines:
        # deb [options] uri suite component...
        found = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
        if found and found[2] == suite and "main" in found[3].split():
            yield found[1]


def _build(scratch: Path, path: Path) -> None:
    root = scratch / "root"
    source = mirror(SUITE)
    # In namespaces of its own: what debootstrap mounts and starts goes when it goes.
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    run([*isolated, *command, *([source] if source else [])], timeout=TIMEOUT)
    for pattern in REMOVED:
        for item in root.glob(pattern):
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
    # Builds mount the machine's settings over it; a mount point that did not exist would stay in the built image.
    (root / "etc" / "pip.conf").touch()
    layer = scratch / "layer.tar"
    run(["tar", "--sort=name", "--numeric-owner", "-C", str(root), "-cf", str(layer), "."], timeout=TIMEOUT)
    archive.write(scratch / "base.tar", layer, reference=reference(), entrypoint=())
    (scratch / "base.tar").rename(path)
