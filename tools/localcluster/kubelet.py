"""The kubelet's configuration for a node that shares its machine with other work."""

from pathlib import Path

import yaml

from localcluster import cgroups
from localcluster.certificates import Authority
from localcluster.containerd import SOCKET
from localcluster.network import DNS_HOST


def command(binary: Path, *, cluster: str, node: str, address: str, directory: Path, authority: Authority) -> list[str]:
    """Write the kubelet's files below a directory and return its command line.

    Args:
        binary: the kubelet.
        cluster: the cluster's name.
        node: the node's name.
        address: the node's address; a loopback address is refused.
        directory: the cluster's state, as seen from inside of the node.
        authority: whose clients may call the kubelet.
    """
    for name in ("kubelet", "pods"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "resolv.conf").write_text("")
    (directory / "kubelet.yaml").write_text(yaml.safe_dump(configuration(cluster, directory, authority)))
    return [
        str(binary),
        f"--config={directory / 'kubelet.yaml'}",
        f"--kubeconfig={directory / 'kubeconfigs' / 'kubelet.yaml'}",
        f"--hostname-override={node}",
        f"--root-dir={directory / 'kubelet'}",
        f"--node-ip={address}",
    ]


def configuration(cluster: str, directory: Path, authority: Authority) -> dict[str, object]:
    """Return the KubeletConfiguration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.files.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        # The API server comes from another address than loopback: logs, exec and port-forward.
        "address": "0.0.0.0",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.name(cluster)}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "clusterDNS": [DNS_HOST],
        "clusterDomain": "cluster.local",
        "resolvConf": str(directory / "resolv.conf"),
        "podLogsDir": str(directory / "pods"),
        "volumePluginDir": str(directory / "kubelet" / "plugins"),
        "maxPods": 110,
        "podPidsLimit": 1024,
        # A developer's disk is often full by the standards of a server, and there is no registry to pull from again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"),
    }
