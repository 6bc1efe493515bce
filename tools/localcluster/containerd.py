"""The node's container runtime: containerd with a root of its own, and images brought to it without a registry."""

import re
import subprocess
from pathlib import Path

from localcluster import archive
from localcluster.commands import run
from localcluster.errors import LocalClusterError
from localcluster.network import POD_CIDR
from localcluster.requirements import CNI_PLUGINS

SOCKET = Path("/run/containerd/containerd.sock")
PAUSE_IMAGE = "taskmaster.dev/pause:1"
LABEL = "taskmaster.dev/archive"
IMPORT_TIMEOUT = 300.0
CAP_SYS_RESOURCE = 24

CONFIG = """\
version = 2
root = "{root}"
state = "/run/containerd/state"
disabled_plugins = [{disabled}]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = {restrict_oom}

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = "{cni_conf}"
"""

# IPAM keeps its leases in /run: they end with the pods that hold them when the node stops.
CNI_CONFIG = """\
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": "POD_CIDR"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}
"""


def write_config(directory: Path) -> list[str]:
    """Write the configuration files below a directory and return containerd's command line."""
    cni_conf = directory / "cni"
    cni_conf.mkdir(parents=True, exist_ok=True)
    (cni_conf / "10-pods.conflist").write_text(CNI_CONFIG.replace("POD_CIDR", POD_CIDR))
    root = directory / "containerd"
    root.mkdir(exist_ok=True)
    unused = ("aufs", "btrfs", "devmapper", "zfs")
    config = directory / "containerd.toml"
    text = CONFIG.format(
        root=root,
        disabled=", ".join(f'"io.containerd.snapshotter.v1.{name}"' for name in unused),
        socket=SOCKET,
        pause=PAUSE_IMAGE,
        restrict_oom=str(not has_capability(Path("/proc/self/status").read_text(), CAP_SYS_RESOURCE)).lower(),
        # An overlay cannot have its writable layer on another overlay, as in a container.
        snapshotter="native" if _file_system(root) == "overlayfs" else "overlayfs",
        cni=CNI_PLUGINS,
        cni_conf=cni_conf,
    )
    config.write_text(text)
    return ["containerd", "--config", str(config)]


def has_capability(status: str, number: int) -> bool:
    """Return whether a process has a capability, given the text of its status file.

    Without CAP_SYS_RESOURCE, runc cannot make processes less likely to be killed when memory runs out, and fails.
    """
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> number & 1)


def serving() -> bool:
    """Return whether the containerd of this mount namespace answers."""
    try:
        run([*_ctr(), "version"], timeout=10)
    except LocalClusterError:
        return False
    return True


def import_pause(binary: Path, scratch: Path) -> None:
    """Give containerd the image that holds a pod's namespaces open."""
    path = scratch / "pause.tar"
    archive.write_single_file(path, binary, reference=PAUSE_IMAGE, entrypoint="/pause")
    run([*_ctr(), "images", "import", str(path)], timeout=IMPORT_TIMEOUT)
    path.unlink()


def labelled(init: int) -> set[str]:
    """Return the keys of the image archives that a node has imported."""
    listed = run([*_inside(init), *_ctr(), "images", "list"], timeout=60)
    return set(re.findall(rf"{re.escape(LABEL)}=(\w+)", listed))


def label(init: int, reference: str, key: str) -> None:
    """Remember from which archive an image came."""
    run([*_inside(init), *_ctr(), "images", "label", qualified(reference), f"{LABEL}={key}"], timeout=60)


def qualified(reference: str) -> str:
    """Return an image's name if it says where the image is from.

    Raises:
        LocalClusterError: it leaves that to be completed, which containerd does not do.
    """
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    raise LocalClusterError(f"the image {reference} has no registry in its name: call it localhost/{reference}")


def load(init: int, path: Path) -> None:
    """Import an image archive into a node."""
    with path.open("rb") as stream:
        done = subprocess.run(
            [*_inside(init), *_ctr(), "images", "import", "-"],
            stdin=stream,
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT,
            check=False,
        )
    if done.returncode != 0:
        raise LocalClusterError(f"importing {path} failed:\n{done.stderr.strip()}")


def _inside(init: int) -> list[str]:
    return ["nsenter", f"--target={init}", "--mount", "--pid", "--net"]


def _ctr() -> list[str]:
    return ["ctr", "--address", str(SOCKET), "--namespace", "k8s.io"]


def _file_system(path: Path) -> str:
    return run(["stat", "--file-system", "--format=%T", str(path)], timeout=10).strip()
