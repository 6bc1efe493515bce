"""Building with buildah, in a storage of our own: the machine's /var/lib/containers is never touched.

The vfs driver and chroot isolation work in every environment that has root, also inside of containers and without
cgroups or overlay mounts. Everything runs in namespaces of its own and leaves no mounts behind when it is killed.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localcluster import buildsettings
from localcluster.commands import run

TIMEOUT = 1200.0
# Empty in every Debian system.
MOUNT = "/mnt"
# What buildah makes outside of its storage, whatever its options.
TRACES = (Path("/etc/cni"), Path("/var/lib/containers"))


class Buildah:
    """A buildah whose storage is in one directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
        storage = [f"--root={directory / 'root'}", f"--runroot={directory / 'run'}", "--storage-driver=vfs"]
        policy = directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._policy = f"--signature-policy={policy}"
        self._command = [*isolated, "buildah", *storage]

    def import_base(self, archive: Path, reference: str) -> None:
        """Bring an image archive into the storage, under a name, unless it is there."""
        names = self._run("images", "--format", "{{.Name}}:{{.Tag}}").split()
        if reference in names:
            return
        # An earlier base is of no use any more, and vfs keeps full copies.
        self._run("rmi", "--all", "--force", check=False)
        identity = self._run("pull", self._policy, "--quiet", f"oci-archive:{archive}").split()[-1]
        self._run("tag", identity, reference)

    def build(
        self, reference: str, dockerfile: Path, context: Path, arguments: Mapping[str, str], target: Path
    ) -> None:
        """Build a Dockerfile and write the image to an archive; nothing of it stays in the storage."""
        settings = buildsettings.collect(links=MOUNT)
        with tempfile.TemporaryDirectory() as scratch:
            for number, directory in enumerate(settings.directories):
                shutil.copytree(directory, Path(scratch) / "links" / str(number))
            (Path(scratch) / "pip.conf").write_text(settings.pip_config)
            # Only onto what is in the image already: a mount point that is made for the build would stay in it.
            mounts = {"/etc/pip.conf": Path(scratch) / "pip.conf"}
            if settings.directories:
                mounts[MOUNT] = Path(scratch) / "links"
            if settings.bundle:
                mounts[buildsettings.BUNDLE_IN_IMAGE] = settings.bundle.resolve()
            options = [f"--volume={source}:{inside}:ro" for inside, source in mounts.items()]
            options += [f"--build-arg={name}={value}" for name, value in {**settings.proxies, **arguments}.items()]
            fixed = ["--isolation=chroot", "--pull-never", "--layers=false", "--quiet", "--format=docker"]
            self._run(
                "build", *fixed, self._policy, *options, f"--tag={reference}", f"--file={dockerfile}", str(context)
            )
            try:
                self._run("push", "--quiet", self._policy, reference, f"docker-archive:{target}:{reference}")
            finally:
                self._run("rmi", "--force", reference, check=False)

    def _run(self, *arguments: str, check: bool = True) -> str:
        new = [path for path in TRACES if not path.exists()]
        try:
            return run([*self._command, *arguments], timeout=TIMEOUT, check=check)
        finally:
            for path in new:
                shutil.rmtree(path, ignore_errors=True)
