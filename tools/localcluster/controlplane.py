"""A control plane for tests: etcd, kube-apiserver and kube-controller-manager as child processes on 127.0.0.1.

It needs neither root nor namespaces, and it is real: RBAC, admission, CEL and bound service-account tokens behave as on
any cluster. There is no node, so Pods stay Pending.

Invariants: the children never outlive this process (see `processes`); the API server is stopped before etcd, because
the other way round it hangs in its own shutdown for minutes and keeps its port; the port stays the same when the API
server is restarted, so that clients can find it again.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from localcluster import components, kubeconfig, tools
from localcluster.certificates import Authority, KeyPair
from localcluster.errors import LocalClusterError
from localcluster.probes import free_port, https_get, wait_until
from localcluster.processes import Child, tail

READY_TIMEOUT = 60.0
# As long as anybody watches, the API server does not end by itself for a minute; there is nothing in it to lose.
APISERVER_GRACE = 1.0
SERVICE_CIDR = "10.96.0.0/16"
SERVICE_HOST = "10.96.0.1"


class ControlPlane:
    """Context manager around a running control plane whose files are all in one directory.

    Args:
        directory: created if need be; an earlier control plane's data in it is used again.
        controller_manager: whether to run it. Without it there are no `default` service accounts and no garbage
            collection, and the start is a second faster.
        apiserver_args: further flags of kube-apiserver.
        bin_dir: where the binaries are; built if not given.
    """

    def __init__(
        self,
        directory: Path,
        *,
        controller_manager: bool = True,
        apiserver_args: Sequence[str] = (),
        bin_dir: Path | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.bin_dir = bin_dir or tools.build(tools.CONTROL_PLANE)
        self.authority = Authority(self.directory / "pki")
        self._address = components.Address(bind="127.0.0.1", host="127.0.0.1", port=free_port())
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        self._with_controller_manager = controller_manager
        self._apiserver_args = list(apiserver_args)
        self._admin = self.authority.issue("admin", "admin", groups=["system:masters"])
        self._children: dict[str, Child] = {}
        self.kubeconfig = self._write_kubeconfig("admin", self._admin)

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._address.url

    @property
    def ca_file(self) -> Path:
        """The CA certificate that the API server's own certificate is signed with."""
        return self.authority.files.certificate

    @property
    def url_metrics(self) -> str:
        """Where the API server serves its own metrics (to the admin user)."""
        return f"{self.server}/metrics"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop everything in the right order."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            if child := self._children.pop(name, None):
                child.stop(grace=APISERVER_GRACE)

    def stop_apiserver(self) -> None:
        """Stop the API server only: clients see refused connections until it is started again."""
        self._children["kube-apiserver"].stop(grace=APISERVER_GRACE)

    def start_apiserver(self) -> None:
        """Start the API server on its old port, and wait until it is ready."""
        command = components.apiserver(
            self.bin_dir / "kube-apiserver",
            authority=self.authority,
            etcd_url=self._etcd_url,
            address=self._address,
            service_cidr=SERVICE_CIDR,
            service_host=SERVICE_HOST,
        )
        # Without a node nothing can use the `kubernetes` Service, and its endpoints must not be loopback addresses.
        self._run("kube-apiserver", [*command, "--endpoint-reconciler-type=none", *self._apiserver_args])
        self._wait(lambda: self._get("/readyz") == 200, "the API server to be ready")

    def restart_apiserver(self) -> None:
        """Stop the API server and start it again."""
        self.stop_apiserver()
        self.start_apiserver()

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig for a user who proves to be in `groups` by a client certificate."""
        name = _file_name(user, *groups)
        return self._write_kubeconfig(name, self.authority.issue(name, user, groups=groups))

    def kubeconfig_for_token(self, token: str) -> Path:
        """Return a kubeconfig for a bearer token, such as a service account's."""
        return self._write_kubeconfig(_file_name("token", token), token)

    def logs(self) -> str:
        """Return the end of every component's log."""
        return "\n".join(f"==> {path.name}\n{tail(path)}" for path in sorted(self.directory.glob("*.log")))

    def _start(self) -> None:
        etcd = components.etcd(self.bin_dir / "etcd", self.directory / "etcd", self._etcd_url)
        self._run("etcd", etcd)
        self.start_apiserver()
        if not self._with_controller_manager:
            return
        pair = self.authority.issue("controller-manager", "system:kube-controller-manager")
        command = components.controller_manager(
            self.bin_dir / "kube-controller-manager",
            authority=self.authority,
            kubeconfig=self._write_kubeconfig("controller-manager", pair),
            port=free_port(),
        )
        self._run("kube-controller-manager", command)
        # Pods and bound tokens need it, and it is the last thing that the controllers do for a new namespace.
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(lambda: self._get(path) == 200, "the default service account")

    def _run(self, name: str, command: Sequence[str]) -> None:
        self._children[name] = Child(name, command, self.directory / f"{name}.log")

    def _get(self, path: str) -> int:
        return https_get(self.server + path, authority=self.ca_file, credentials=self._admin).status

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def watch() -> None:
            for child in self._children.values():
                child.expect_running()

        try:
            wait_until(condition, what, timeout=READY_TIMEOUT, watch=watch)
        except LocalClusterError as error:
            raise LocalClusterError(f"{error}\n{self.logs()}") from error

    def _write_kubeconfig(self, name: str, credentials: KeyPair | str) -> Path:
        config = kubeconfig.client("taskmaster", server=self.server, authority=self.ca_file, credentials=credentials)
        return kubeconfig.write(self.directory / f"{name}.kubeconfig", config)


def _file_name(*words: str) -> str:
    readable = "".join(letter if letter.isalnum() else "-" for letter in words[0])[:40]
    return f"{readable}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"
