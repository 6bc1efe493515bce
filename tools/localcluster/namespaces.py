"""Namespaces and mounts of a node's own.

`unshare` gives the node's first process pid, mount, UTS and IPC namespaces; it then enters a network namespace from
within, because only a process that has seen both can lay the cable between them. All mounts below exist in the node's
mount namespace only, so they end with its last process and need no clean-up:

- /run is empty: sockets, locks and named network namespaces of containerd, runc, iptables and CNI.
- /run/taskmaster is the cluster's state directory, under a path short enough for Unix sockets.
- /var is a copy-on-write view: the kubelet and CNI write to fixed places there.
- A few kernel settings appear as the kubelet wants them, so that it does not change them for the whole machine.
"""

import ctypes
import os
from pathlib import Path

from localcluster.commands import run
from localcluster.errors import LocalClusterError

INSIDE = Path("/run/taskmaster")
TIMEOUT = 20.0
CLONE_NEWNET = 0x40000000
TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def command(program: list[str]) -> list[str]:
    """Return a command line that runs a program as process 1 of new namespaces; all in them dies with it."""
    flags = ["--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "--uts", "--ipc"]
    return ["unshare", *flags, "--", *program]


def enter_network() -> int:
    """Move this process into a new network namespace; return a file descriptor of the old one."""
    old = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        error = os.strerror(ctypes.get_errno())
        raise LocalClusterError(f"cannot make a network namespace: {error}")
    return old


def mount_all(state: Path) -> None:
    """Make the mounts that are described above."""
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in (INSIDE, Path("/run/var/upper"), Path("/run/var/work"), Path("/run/var/host"), Path("/run/tunables")):
        path.mkdir(parents=True)
    Path("/run/tmp").mkdir(mode=0o1777)
    _mount("--bind", str(state), str(INSIDE))
    _overlay_var()
    for key, value in TUNABLES.items():
        setting = Path("/proc/sys", key)
        if setting.exists():
            stand_in = Path("/run/tunables", key.replace("/", "."))
            stand_in.write_text(f"{value}\n")
            _mount("--bind", str(stand_in), str(setting))
    # Mounts that the kubelet makes for a pod have to reach containers that run already.
    _mount("--make-rshared", "/")


def submounts(mountinfo: str, below: str) -> list[str]:
    """Return the outermost mount points below a directory, given the text of a mountinfo file."""
    points = sorted({line.split()[4] for line in mountinfo.splitlines() if line.split()[4].startswith(f"{below}/")})
    outermost: list[str] = []
    for point in points:
        if not any(point.startswith(f"{outer}/") for outer in outermost):
            outermost.append(point)
    return outermost


def _overlay_var() -> None:
    hidden = submounts(Path("/proc/self/mountinfo").read_text(), "/var")
    _mount("--rbind", "/var", "/run/var/host")
    layers = "lowerdir=/var,upperdir=/run/var/upper,workdir=/run/var/work"
    _mount("-t", "overlay", "-o", layers, "overlay", "/var")
    # An overlay shows nothing of what is mounted inside of its lower directory.
    for point in hidden:
        _mount("--rbind", f"/run/var/host{point.removeprefix('/var')}", point)


def _mount(*arguments: str) -> None:
    run(["mount", *arguments], timeout=TIMEOUT)
