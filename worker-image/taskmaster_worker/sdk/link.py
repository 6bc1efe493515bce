"""A connection to the supervisor of this attempt: frames of four bytes of big-endian length and one JSON object.

Made when it is first needed, and anew after an error: an exception (`Cancelled` among them) that interrupts a frame
would leave the rest of the stream unreadable. A fork makes its own.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

from taskmaster_worker.sdk.wire import socket_address

_HEADER_BYTES = 4


class Link:
    """To be used by any thread; one at a time has it."""

    def __init__(self, timeout: float | None) -> None:
        """Set how long, in seconds, the supervisor may take to listen; None is for ever."""
        self._timeout = timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        os.register_at_fork(after_in_child=self._reset)

    def send(self, body: bytes) -> None:
        """Send one JSON object.

        Raises:
            OSError: the supervisor does not listen.
        """
        with self._lock:
            self._use(body, answered=False)

    def ask(self, body: bytes) -> dict[str, Any]:
        """Send one JSON object and return the answer to it, however long that takes.

        Raises:
            OSError: the supervisor does not listen, or has gone.
        """
        with self._lock:
            return self._use(body, answered=True)

    def _use(self, body: bytes, *, answered: bool) -> dict[str, Any]:
        whole = False
        try:
            if self._socket is None:
                self._socket = _connect(self._timeout)
            self._socket.sendall(len(body).to_bytes(_HEADER_BYTES, "big") + body)
            answer = _receive(self._socket) if answered else {}
            whole = True
            return answer
        finally:
            if not whole and self._socket is not None:
                self._socket.close()
                self._socket = None

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._socket = None


def _connect(timeout: float | None) -> socket.socket:
    path = os.environ["TASK_CONTEXT_SOCKET"]
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        with socket_address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _receive(connection: socket.socket) -> dict[str, Any]:
    length = int.from_bytes(_exactly(connection, _HEADER_BYTES), "big")
    answer: dict[str, Any] = json.loads(_exactly(connection, length))
    return answer


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the supervisor has closed the connection")
        data += more
    return data
