"""What a node cluster needs of its machine: checked, and on Debian installed.

Programs are looked for, not packages: whoever has containerd from somewhere else keeps it. Where something is missing
and cannot be installed from here, one message names everything at once, because finding out piece by piece is what
makes people give up.
"""

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from localcluster import tools
from localcluster.commands import run, say
from localcluster.errors import LocalClusterError

CNI_PLUGINS = Path("/usr/lib/cni")
# Programs that tell whether a Debian package is there. A path is taken as it is, a name is looked up.
PACKAGES = {
    "containerd": ("containerd", "ctr"),
    "runc": ("runc",),
    "debootstrap": ("debootstrap",),
    "containernetworking-plugins": (str(CNI_PLUGINS / "bridge"), str(CNI_PLUGINS / "host-local")),
    "iproute2": ("ip",),
    "iptables": ("iptables", "iptables-save", "iptables-restore"),
    "conntrack": ("conntrack",),
    "buildah": ("buildah",),
    "util-linux": ("unshare", "nsenter", "setpriv"),
    "mount": ("mount",),
}
POLICY = Path("/usr/sbin/policy-rc.d")
APT_TIMEOUT = 600.0


def ensure() -> None:
    """Check everything, install the missing Debian packages where that is possible.

    Raises:
        LocalClusterError: something is missing that the user has to provide; the message names all of it.
    """
    missing = missing_packages()
    problems = unfixable(missing)
    if problems:
        raise LocalClusterError(complaint(problems))
    if missing:
        _install(missing)
        if still := missing_packages():
            raise LocalClusterError(f"still missing after installation: {', '.join(still)}")


def complaint(problems: Sequence[str]) -> str:
    """Put problems and ways out into one message."""
    return (
        "\n  - ".join(["the local cluster cannot run here:", *problems])
        + "\nAlternatives: CLUSTER=kind on a machine with a Docker engine, or CLUSTER=existing with IMAGE_REGISTRY."
    )


def missing_packages() -> list[str]:
    """Return the packages of which a program is missing."""
    return [package for package, programs in PACKAGES.items() if not all(map(find, programs))]


def unfixable(missing: Sequence[str]) -> list[str]:
    """Return what the user has to do something about, in words; nothing where `ensure` can do the rest."""
    problems = []
    if platform.system() != "Linux":
        return [f"it needs Linux; this is {platform.system()}"]
    is_root = os.geteuid() == 0
    if not is_root:
        problems.append("it needs root, for namespaces, mounts and cgroups: run it as root, or with sudo -E")
    try:
        tools.go_version()
    except LocalClusterError as error:
        problems.append(f"{error} (https://go.dev/doc/install)")
    if missing and not (is_root and shutil.which("apt-get")):
        programs = sorted({Path(program).name for package in missing for program in PACKAGES[package]})
        problems.append(
            f"missing programs: {', '.join(programs)}; on Debian: apt-get install --no-install-recommends "
            + " ".join(missing)
        )
    return problems


def find(program: str) -> str | None:
    """Return where a program is, also where root's PATH does not look."""
    # Root's PATH lacks the sbin directories on some machines.
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def _install(packages: Sequence[str]) -> None:
    say(f"Installing Debian packages: {' '.join(packages)}")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    lock = ["-o", "DPkg::Lock::Timeout=300"]
    with _no_services():
        run(["apt-get", *lock, "-qq", "update"], timeout=APT_TIMEOUT, env=environment)
        command = ["apt-get", *lock, "-qq", "install", "-y", "--no-install-recommends", *packages]
        run(command, timeout=APT_TIMEOUT, env=environment)


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting their services: the cluster runs a containerd of its own."""
    # An existing policy is the administrator's, and stays.
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
