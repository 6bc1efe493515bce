"""Waiting until something is so: polling with a deadline, and the probes that need no client library."""

import contextlib
import http.client
import random
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster.certificates import KeyPair
from localcluster.errors import LocalClusterError

PAUSE = 0.05


def wait_until(
    condition: Callable[[], bool], what: str, *, timeout: float, watch: Callable[[], None] = lambda: None
) -> None:
    """Poll until `condition` holds.

    Args:
        condition: cheap and without side effects.
        what: completes "timed out waiting for ...".
        timeout: seconds.
        watch: called before each poll; may raise when waiting has become pointless.

    Raises:
        LocalClusterError: it did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        watch()
        if condition():
            return
        if time.monotonic() > deadline:
            raise LocalClusterError(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(PAUSE)


@dataclass(frozen=True)
class Answer:
    """What a server said; status 0 means that it said nothing."""

    status: int
    body: bytes = b""


def https_get(url: str, *, authority: Path, credentials: KeyPair | None = None, timeout: float = 5.0) -> Answer:
    """Send a GET and return the answer, whatever its status; never through a proxy."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        if credentials:
            context.load_cert_chain(credentials.certificate, credentials.key)
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
        )
        with opener.open(url, timeout=timeout) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return Answer(error.code)
    except (OSError, http.client.HTTPException):
        return Answer(0)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on.

    It is taken from below the range that Linux uses for outgoing connections: no passing connection can take it while
    the server that belongs there restarts.
    """
    for _ in range(200):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LocalClusterError("no free TCP port between 20000 and 32000 on 127.0.0.1")
