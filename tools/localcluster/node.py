"""The first process of a node cluster: it starts all components and is what ends them.

It is process 1 of a pid namespace (see `namespaces`), so everything it starts, containers included, dies with it, even
if it is killed. It depends on nobody: whoever started it may end at any time. A component that ends is started again,
as an init system would.

Run as `python -m localcluster.node STATE_DIRECTORY`; SIGTERM stops the components in order.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from localcluster import cgroups, components, containerd, kubelet, namespaces, network
from localcluster.certificates import Authority
from localcluster.layout import Layout
from localcluster.probes import https_get, wait_until
from localcluster.processes import Child

STARTUP_TIMEOUT = 90.0
RESTART_DELAY = 1.0
PAUSE = 0.25
STOP_ORDER = (
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
    "containerd",
)


class Node:
    """All components of one cluster, seen from inside of its namespaces."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.inside = Layout(namespaces.INSIDE, layout.spec)
        self._children: dict[str, Child] = {}
        self._commands: dict[str, list[str]] = {}

    def set_up(self) -> None:
        """Make cgroup, mounts and network."""
        spec = self.layout.spec
        socket.sethostname(spec.node)
        cgroups.create(spec.name)
        namespaces.mount_all(self.layout.directory)
        outer = namespaces.enter_network()
        network.connect(spec.name, spec.link, outer)
        os.close(outer)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        os.chdir(namespaces.INSIDE)
        os.environ["TMPDIR"] = "/run/tmp"

    def start(self) -> None:
        """Start everything, each as soon as what it needs is there."""
        inside, spec = self.inside, self.layout.spec
        authority = Authority(inside.pki)
        self._run("containerd", containerd.write_config(inside.directory))
        etcd_url = "http://127.0.0.1:2379"
        self._run("etcd", components.etcd(spec.binary("etcd"), inside.directory / "etcd", etcd_url))
        apiserver = components.apiserver(
            spec.binary("kube-apiserver"),
            authority=authority,
            etcd_url=etcd_url,
            address=spec.address,
            service_cidr=network.SERVICE_CIDR,
            service_host=network.SERVICE_HOST,
        )
        self._run("kube-apiserver", apiserver)
        self._wait(containerd.serving, "containerd to answer")
        containerd.import_pause(spec.binary("pause"), Path("/run/tmp"))
        self._wait(
            lambda: https_get(f"{spec.address.url}/readyz", authority=authority.files.certificate).status == 200,
            "the API server to be ready",
        )
        manager = components.controller_manager(
            spec.binary("kube-controller-manager"),
            authority=authority,
            kubeconfig=inside.kubeconfig("controller-manager"),
            port=10257,
        )
        self._run("kube-controller-manager", manager)
        self._run(
            "kube-scheduler",
            components.scheduler(spec.binary("kube-scheduler"), kubeconfig=inside.kubeconfig("scheduler")),
        )
        agent = kubelet.command(
            spec.binary("kubelet"),
            cluster=spec.name,
            node=spec.node,
            address=spec.link.node,
            directory=inside.directory,
            authority=authority,
        )
        self._run("kubelet", agent)
        proxy = components.proxy(
            spec.binary("kube-proxy"),
            kubeconfig=inside.kubeconfig("proxy"),
            node=spec.node,
            pod_cidr=network.POD_CIDR,
        )
        self._run("kube-proxy", proxy)

    def supervise(self) -> None:
        """Reap what was left to process 1, and start again what ended by itself. Never returns."""
        while True:
            time.sleep(PAUSE)
            self._reap()
            ended = [name for name, child in self._children.items() if not child.running]
            for name in ended:
                print(f"{name} ended, starting it again", flush=True)
                time.sleep(RESTART_DELAY)
                self._run(name, self._commands[name])

    def stop(self) -> None:
        """Stop the components; the API server before etcd, or it would hang."""
        for name in STOP_ORDER:
            if child := self._children.pop(name, None):
                child.stop(grace=2.0)

    def _run(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        self._children[name] = Child(name, command, self.inside.log(name))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def watch() -> None:
            for child in self._children.values():
                child.expect_running()

        wait_until(condition, what, timeout=STARTUP_TIMEOUT, watch=watch)

    def _reap(self) -> None:
        own = {child.pid for child in self._children.values()}
        with contextlib.suppress(ChildProcessError):
            # Only looking: the status of our own children belongs to their Child.
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in own:
                    return
                os.waitpid(found.si_pid, 0)


def main(directory: Path) -> None:
    """Run one cluster until SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = Node(Layout.load(directory))
    try:
        node.set_up()
        node.start()
        print("all components run", flush=True)
        node.supervise()
    except KeyboardInterrupt:
        node.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
