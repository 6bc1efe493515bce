"""What a node cluster consists of on disk: one directory, one small file that says what was decided at its creation."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from localcluster import kubeconfig
from localcluster.certificates import Authority, KeyPair
from localcluster.components import Address
from localcluster.errors import LocalClusterError
from localcluster.network import Link, Network

API_PORT = 6443
USERS = {
    "admin": ("kubernetes-admin", ("system:masters",)),
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
}


@dataclass(frozen=True)
class Spec:
    """What stays the same for the whole life of a cluster.

    Attributes:
        name: the cluster's name.
        subnet: the /30 that joins it to the machine.
        bin_dir: where its binaries are.
    """

    name: str
    subnet: str
    bin_dir: str

    @property
    def node(self) -> str:
        """The node's name, as kind would call it."""
        return f"{self.name}-control-plane"

    @property
    def context(self) -> str:
        """The name of cluster, user and context in kubeconfigs, as kind would call them."""
        return context_of(self.name)

    @property
    def link(self) -> Link:
        """The network between machine and cluster."""
        return Link(Network(self.subnet))

    @property
    def address(self) -> Address:
        """Where the API server is."""
        return Address(bind="0.0.0.0", host=self.link.node, port=API_PORT)

    def binary(self, tool: str) -> Path:
        """Return the path of one of its binaries."""
        return Path(self.bin_dir, tool)


@dataclass(frozen=True)
class Layout:
    """Paths below a cluster's state directory, which has another name inside of the node."""

    directory: Path
    spec: Spec

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `create` wrote.

        Raises:
            LocalClusterError: there is no cluster, or its creation did not get far.
        """
        try:
            return cls(directory, Spec(**json.loads((directory / "cluster.json").read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise LocalClusterError(f"no usable cluster in {directory}: {error}") from error

    def create(self) -> None:
        """Write everything that a node needs to start: certificates, kubeconfigs and, last, the description."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("kubeconfigs", "logs"):
            (self.directory / name).mkdir(exist_ok=True)
        authority = Authority(self.pki)
        for name, (user, groups) in USERS.items():
            self._write_kubeconfig(name, authority.issue(name, user, groups=groups))
        agent = authority.issue("kubelet", f"system:node:{self.spec.node}", groups=["system:nodes"])
        self._write_kubeconfig("kubelet", agent)
        (self.directory / "cluster.json").write_text(json.dumps(dataclasses.asdict(self.spec)))

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.directory / "pki"

    @property
    def admin(self) -> KeyPair:
        """The administrator's client certificate."""
        return KeyPair(self.pki / "admin.crt", self.pki / "admin.key")

    @property
    def authority(self) -> Path:
        """The CA certificate."""
        return self.pki / "ca.crt"

    def kubeconfig(self, user: str) -> Path:
        """Return a user's kubeconfig."""
        return self.directory / "kubeconfigs" / f"{user}.yaml"

    def log(self, component: str) -> Path:
        """Return a component's log file."""
        return self.directory / "logs" / f"{component}.log"

    def _write_kubeconfig(self, name: str, credentials: KeyPair) -> None:
        spec = self.spec
        config = kubeconfig.client(
            spec.context, server=spec.address.url, authority=self.authority, credentials=credentials
        )
        kubeconfig.write(self.kubeconfig(name), config)


def context_of(cluster: str) -> str:
    """Return what a cluster is called in kubeconfigs."""
    return f"kind-{cluster}"
