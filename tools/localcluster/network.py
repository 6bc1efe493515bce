"""The network of one cluster: a namespace of its own, joined to the machine by one veth pair.

    machine            | the cluster's namespace
    tmXXXXXXXX --------|-- eth0 (node address, API server)      cni0 (bridge) --- pods
       .1         /30  |     .2                                 10.244.0.1/24

Only the /30 is visible on the machine. Pod and Service addresses exist inside the namespace alone and are therefore the
same in every cluster. There is no way out of the namespace and no rule on the machine: nothing is forwarded and nothing
translated, so ending the namespace ends all of it, its veth pair included.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from localcluster.commands import run
from localcluster.errors import LocalClusterError

Network = ipaddress.IPv4Network
POD_CIDR = "10.244.0.0/24"
POD_GATEWAY = "10.244.0.1"
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_HOST = "10.96.0.1"
DNS_HOST = "10.96.0.10"
# From three private ranges, because a company's network often covers one or two of them completely.
LINK_RANGES = tuple(Network(text) for text in ("172.31.192.0/20", "10.213.0.0/20", "192.168.208.0/20"))
TIMEOUT = 20.0


@dataclass(frozen=True)
class Link:
    """The /30 between the machine and one cluster."""

    subnet: Network

    @property
    def host(self) -> str:
        """The machine's address."""
        return str(self.subnet[1])

    @property
    def node(self) -> str:
        """The cluster's address: its only node's, and its API server's."""
        return str(self.subnet[2])


def interface(cluster: str) -> str:
    """Return the name of the machine's end of the veth pair; the kernel allows 15 letters."""
    return f"tm{hashlib.sha256(cluster.encode()).hexdigest()[:8]}"


def choose_link(cluster: str, taken: Iterable[Network]) -> Link:
    """Return a /30 that overlaps nothing in `taken`; the same one for the same name as long as that is free.

    Raises:
        LocalClusterError: everything is taken.
    """
    occupied = list(taken)
    number = int(hashlib.sha256(cluster.encode()).hexdigest(), 16)
    for candidate in _candidates(number):
        if not any(candidate.overlaps(network) for network in occupied):
            return Link(candidate)
    ranges = ", ".join(map(str, LINK_RANGES))
    raise LocalClusterError(f"no free network for the cluster: routes of this machine cover {ranges}")


def routed() -> list[Network]:
    """Return the networks that this machine has a route or an address for, the default route excepted."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"], timeout=TIMEOUT) or "[]")
    return networks(route["dst"] for route in routes)


def networks(destinations: Iterable[str]) -> list[Network]:
    """Parse destinations as `ip route` prints them."""
    plain = (text for text in destinations if re.fullmatch(r"[\d./]+", text))
    return [Network(text, strict=False) for text in plain]


def connect(cluster: str, link: Link, host_namespace: int) -> None:
    """Set up the network from inside of the namespace.

    Args:
        cluster: its name.
        link: the /30 to use.
        host_namespace: an open file descriptor of the machine's network namespace.
    """
    outside = ["nsenter", f"--net=/proc/self/fd/{host_namespace}", "ip"]
    name = interface(cluster)
    run([*outside, "link", "delete", name], timeout=TIMEOUT, check=False, pass_fds=[host_namespace])
    for command in (
        # The caller is process 1 of its pid namespace.
        f"link add {name} type veth peer name eth0 netns 1",
        f"address add {link.host}/30 dev {name}",
        f"link set {name} up",
    ):
        run([*outside, *command.split()], timeout=TIMEOUT, pass_fds=[host_namespace])
    for command in (
        "link set lo up",
        f"address add {link.node}/30 dev eth0",
        "link set eth0 up",
        # The kubelet and the first pod both expect the bridge to be there.
        "link add cni0 type bridge",
        f"address add {POD_GATEWAY}/24 dev cni0",
        "link set cni0 up",
        # Processes of the node itself reach Services only if a route exists before kube-proxy's rules rewrite it.
        f"route add {SERVICE_CIDR} dev cni0",
        # There is no DNS server, and lookups shall fail at once: "port unreachable" ends them, "host unreachable" does
        # not. A Service of this address would still take precedence.
        f"address add {DNS_HOST}/32 dev lo",
    ):
        run(["ip", *command.split()], timeout=TIMEOUT)


def disconnect(cluster: str) -> None:
    """Remove the veth pair in case its namespace still exists; usually both are gone already."""
    run(["ip", "link", "delete", interface(cluster)], timeout=TIMEOUT, check=False)


def _candidates(number: int) -> Iterator[Network]:
    for block in LINK_RANGES:
        count = block.num_addresses // 4
        for step in range(count):
            start = int(block.network_address) + (number + step) % count * 4
            yield Network((start, 30))
