"""Credentials: where the API server is, whom to trust, and who we are.

Two sources. In a pod: the mounted service account; the kubelet replaces the token file before it expires, so the file
is read again every few seconds (client-go waits a minute; the read costs microseconds) and at once after a 401.
Outside: the kubeconfig, read by the official client, because contexts, inline certificates and exec plugins are its
business; it is imported only then, since the worker image does not have it.

Tokens appear in no log line and no `repr`.
"""

import asyncio
import importlib
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_MAX_AGE_SECONDS: Final = 10.0


class CredentialsError(Exception):
    """No usable credentials; the message says where they were looked for and what to do."""


class TokenSource(Protocol):
    """Gives the value of the Authorization header; None for a client certificate."""

    async def authorization(self) -> str | None:
        """Return a current value."""
        ...

    def expire(self) -> None:
        """Forget what is cached: the server refused it."""
        ...


class StaticToken:
    """A token that never changes, or none at all."""

    def __init__(self, token: str | None) -> None:
        self._header = f"Bearer {token}" if token else None

    async def authorization(self) -> str | None:
        """Return the same value always."""
        return self._header

    def expire(self) -> None:
        """Nothing to forget."""


class TokenFile:
    """A token in a file that somebody else replaces."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._header: str | None = None
        self._read_at = float("-inf")

    async def authorization(self) -> str | None:
        """Return the file's token, at most ten seconds old."""
        if self._clock() - self._read_at >= TOKEN_MAX_AGE_SECONDS:
            self._read()
        return self._header

    def expire(self) -> None:
        """Read the file again at the next request."""
        self._read_at = float("-inf")

    def _read(self) -> None:
        try:
            token = self._path.read_text().strip()
        except OSError as error:
            # While the kubelet swaps the directory the last token is better than none.
            if self._header is None:
                raise CredentialsError(f"cannot read the token file {self._path}: {error.strerror}") from error
            return
        if token:
            self._header = f"Bearer {token}"
            self._read_at = self._clock()


class KubeconfigToken:
    """Whatever the official client makes of a kubeconfig's user: token, basic auth, or an exec plugin's output."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration

    async def authorization(self) -> str | None:
        """Return the current value; an exec plugin may run for it, hence the thread."""
        if self._configuration.refresh_api_key_hook is None:
            return self._header()
        return await asyncio.to_thread(self._header)

    def _header(self) -> str | None:
        try:
            # The client's name of the header's scheme; it was "authorization" before version 34.
            value = self._configuration.get_api_key_with_prefix("BearerToken")
            value = value or self._configuration.get_api_key_with_prefix("authorization")
        except Exception as error:
            # An exec plugin may fail in any way.
            raise CredentialsError(f"the kubeconfig's credentials cannot be had: {type(error).__name__}") from error
        if value is None and self._configuration.username:
            value = self._configuration.get_basic_auth_token()
        return None if value is None else str(value)

    def expire(self) -> None:
        """The loader's hook judges expiry itself."""


class Credentials:
    """Server address, TLS context, own namespace, and the current Authorization header."""

    def __init__(self, *, server: str, ssl_context: ssl.SSLContext | None, source: TokenSource, namespace: str) -> None:
        self.server = server.rstrip("/")
        self.ssl_context = ssl_context
        self.namespace = namespace
        self._source = source

    def __repr__(self) -> str:
        return f"Credentials(server={self.server!r}, namespace={self.namespace!r})"

    @classmethod
    def from_token(
        cls,
        server: str,
        ca_file: str | Path | None,
        token: str | None = None,
        *,
        token_file: str | Path | None = None,
        namespace: str = "default",
    ) -> "Credentials":
        """Build from a token, or from a file holding one; without a CA file the system's trust store is used."""
        source: TokenSource = TokenFile(Path(token_file)) if token_file is not None else StaticToken(token)
        return cls(server=server, ssl_context=_context(server, ca_file), source=source, namespace=namespace)

    async def authorization(self) -> str | None:
        """Return the Authorization header's value, None if the client certificate is all there is."""
        return await self._source.authorization()

    def expire(self) -> None:
        """Forget a cached token after a 401."""
        self._source.expire()


def load_credentials(kubeconfig: Path | None = None) -> Credentials:
    """Return the kubeconfig's current context if there is a kubeconfig, else the pod's service account.

    The kubeconfig is the given file, else what `KUBECONFIG` names, else `~/.kube/config`.

    Raises:
        CredentialsError: there is neither.
    """
    if kubeconfig or os.environ.get("KUBECONFIG") or (Path.home() / ".kube" / "config").exists():
        return _from_kubeconfig(kubeconfig)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file, ca_file = SERVICE_ACCOUNT_DIR / "token", SERVICE_ACCOUNT_DIR / "ca.crt"
    if not host or not token_file.exists():
        raise CredentialsError(
            "no credentials for a Kubernetes API server: neither KUBECONFIG nor ~/.kube/config, and this is not a pod "
            "with a mounted service account token. Set KUBECONFIG to the path of a kubeconfig file."
        )
    if ":" in host:
        host = f"[{host}]"
    namespace_file = SERVICE_ACCOUNT_DIR / "namespace"
    return Credentials.from_token(
        f"https://{host}:{port}",
        ca_file,
        token_file=token_file,
        namespace=namespace_file.read_text().strip() if namespace_file.exists() else "default",
    )


def _from_kubeconfig(path: Path | None) -> Credentials:
    try:
        kubernetes = importlib.import_module("kubernetes")
    except ImportError as error:
        raise CredentialsError(
            "KUBECONFIG is set, but reading it needs the Python package `kubernetes`; install it, or unset KUBECONFIG "
            "to use the pod's service account."
        ) from error
    config = kubernetes.config
    configuration = kubernetes.client.Configuration()
    try:
        given = None if path is None else str(path)
        config.load_kube_config(config_file=given, client_configuration=configuration)
        _, active = config.list_kube_config_contexts(config_file=given)
    except Exception as error:
        # The loader lets through whatever the YAML parser and a wrong structure raise.
        raise CredentialsError(f"the kubeconfig cannot be used: {error}") from error
    context = _context(configuration.host, configuration.ssl_ca_cert, verify=configuration.verify_ssl)
    if context is not None and configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    namespace = active.get("context", {}).get("namespace") or "default"
    return Credentials(
        server=configuration.host, ssl_context=context, source=KubeconfigToken(configuration), namespace=namespace
    )


def _context(server: str, ca_file: str | Path | None, *, verify: bool = True) -> ssl.SSLContext | None:
    if not server.startswith("https:"):
        return None
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
