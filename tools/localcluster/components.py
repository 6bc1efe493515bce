"""The command lines of Kubernetes' own components, shared by both sizes of cluster.

Flags that are not here have their upstream default: what works on this cluster should work on any.
"""

from dataclasses import dataclass
from pathlib import Path

from localcluster.certificates import Authority, signing_key

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True)
class Address:
    """Where the API server listens, and the address under which it is reached."""

    bind: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"https://{self.host}:{self.port}"


def etcd(binary: Path, data: Path, url: str) -> list[str]:
    """Return etcd's command line. It never syncs to disk: a crash of the machine may cost the (throw-away) cluster."""
    return [
        str(binary),
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8589934592",
        "--log-level=warn",
    ]


def apiserver(
    binary: Path, *, authority: Authority, etcd_url: str, address: Address, service_cidr: str, service_host: str
) -> list[str]:
    """Return the API server's command line, after issuing the certificates that it names."""
    hosts = ["127.0.0.1", "localhost", address.host, service_host, "kubernetes.default.svc"]
    serving = authority.issue("apiserver", "kube-apiserver", hosts=list(dict.fromkeys(hosts)))
    kubelet_client = authority.issue("apiserver-kubelet-client", "kube-apiserver", groups=["system:masters"])
    tokens = signing_key(authority.directory / "service-account.key")
    return [
        str(binary),
        f"--etcd-servers={etcd_url}",
        f"--bind-address={address.bind}",
        f"--secure-port={address.port}",
        f"--advertise-address={address.host}",
        f"--service-cluster-ip-range={service_cidr}",
        "--authorization-mode=Node,RBAC",
        f"--client-ca-file={authority.files.certificate}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-client-certificate={kubelet_client.certificate}",
        f"--kubelet-client-key={kubelet_client.key}",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={tokens}",
        f"--service-account-signing-key-file={tokens}",
        # Node names mean nothing to anybody else: there is no DNS.
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    ]


def controller_manager(binary: Path, *, authority: Authority, kubeconfig: Path, port: int) -> list[str]:
    """Return the controller manager's command line."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={authority.directory / 'service-account.key'}",
        f"--root-ca-file={authority.files.certificate}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        # The default of 20 requests per second makes the start three seconds longer, and every measurement about it.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
    ]


def scheduler(binary: Path, *, kubeconfig: Path) -> list[str]:
    """Return the scheduler's command line."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def proxy(binary: Path, *, kubeconfig: Path, node: str, pod_cidr: str) -> list[str]:
    """Return kube-proxy's command line."""
    return [
        str(binary),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={pod_cidr}",
        # All pods are on one bridge: without this the answer would take the short way back, past the translation.
        "--masquerade-all",
        # These settings belong to the whole machine.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]
