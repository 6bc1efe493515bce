"""What is left of a cluster on this machine: the check behind the promise that deleting one leaves nothing."""

from pathlib import Path

from localcluster import cgroups, discovery, kubeconfig, network
from localcluster.cluster import Cluster
from localcluster.commands import run
from localcluster.layout import context_of
from localcluster.requirements import find

TIMEOUT = 20.0


def leftovers(name: str) -> list[str]:
    """List processes, cgroups, mounts, network devices, namespaces, firewall rules, files and kubeconfig entries."""
    state = Cluster(name).directory
    pids = discovery.marked(state) | set(discovery.launched(state)) | cgroups.members(name)
    found = [f"process {pid}: {discovery.arguments(pid)}" for pid in sorted(pids)]
    found += [f"cgroup {path}" for path in cgroups.directories(name)]
    mounted = Path("/proc/self/mountinfo").read_text()
    found += [f"mount {line.split()[4]}" for line in mounted.splitlines() if f"{state}/" in line]
    found += [f"network device {device}" for device in _devices() if device == network.interface(name)]
    found += [f"network namespace {item}" for item in _lines("ip", "netns", "list") if name in item]
    if find("iptables-save"):
        found += [f"firewall rule {rule}" for rule in _lines("iptables-save") if network.interface(name) in rule]
    if state.exists():
        found.append(f"directory {state}")
    entries = kubeconfig.read(kubeconfig.default_path()).get("clusters") or []
    if any(entry["name"] == context_of(name) for entry in entries):
        found.append(f"entry {context_of(name)} in {kubeconfig.default_path()}")
    return found


def _devices() -> list[str]:
    return [line.split()[1].split("@")[0].rstrip(":") for line in _lines("ip", "-oneline", "link", "show")]


def _lines(*command: str) -> list[str]:
    return run(command, timeout=TIMEOUT).splitlines()
