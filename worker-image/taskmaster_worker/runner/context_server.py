"""The attempt's context socket: where the SDK, in any process of the task, reports progress and checkpoints.

A Unix stream socket in the attempt's directory, with the frames of `frames`. A task sends `{"progress": value}` and
`{"checkpoint": data}`; only the latter is answered, with `{}` or `{"error": sentence}`, on the connection it came from
and in order. Whoever breaks the format loses the connection.
"""

from __future__ import annotations

import select
import socket

from taskmaster_worker.runner import frames
from taskmaster_worker.sdk.wire import socket_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CONNECTIONS = 400
"""At once; the others wait until one of these has ended, so that descriptors are left for our own work."""
_READ_BYTES = 64 * 1024
_READS_AT_END = 64


class ContextServer:
    """Accepts and reads without waiting. `on_message` gets the connection and what it said."""

    def __init__(
        self, path: str, poll: select.poll, on_message: Callable[[socket.socket, dict[str, Any]], None]
    ) -> None:
        """Listen at the path.

        Raises:
            OSError: the file system takes no sockets.
        """
        self._poll = poll
        self._on_message = on_message
        self._connections: dict[int, tuple[socket.socket, frames.Decoder]] = {}
        self._paused = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with socket_address(path) as address:
                self._listener.bind(address)
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        self._poll.register(self._listener, select.POLLIN)

    def ready(self, descriptor: int) -> None:
        """Read what has come on a descriptor that may be ours."""
        if descriptor == self._listener.fileno():
            self._accept()
        elif descriptor in self._connections:
            self._read(descriptor)

    def answer(self, connection: socket.socket, message: dict[str, Any]) -> None:
        """Send an answer, unless the connection has ended; who does not take it at once loses the connection."""
        if (descriptor := connection.fileno()) >= 0:
            data = frames.encode(message)
            try:
                whole = connection.send(data) == len(data)
            except OSError:
                whole = False
            if not whole:
                self._drop(descriptor)

    def drain(self) -> None:
        """Read what the processes of the task, dead by now, have left in their sockets."""
        while self._accept():
            pass
        for descriptor in list(self._connections):
            for _ in range(_READS_AT_END):
                if not self._read(descriptor):
                    break

    def close(self) -> None:
        """Close every socket of this process, of which a fork has copies."""
        self._listener.close()
        for connection, _ in self._connections.values():
            connection.close()

    def _accept(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError:  # no descriptors left
            self._pause()
            return False
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection, frames.Decoder()
        self._poll.register(connection, select.POLLIN)
        if len(self._connections) >= CONNECTIONS:
            self._pause()
        return not self._paused

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._poll.unregister(self._listener)

    def _read(self, descriptor: int) -> bool:
        connection, decoder = self._connections[descriptor]
        try:
            data = connection.recv(_READ_BYTES)
            messages = decoder.feed(data)
        except BlockingIOError:
            return False
        except (OSError, frames.FrameError):
            data, messages = b"", []
        for message in messages:
            self._on_message(connection, message)
        if not data and connection.fileno() >= 0:
            self._drop(descriptor)
        return connection.fileno() >= 0

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._connections.pop(descriptor)[0].close()
        if self._paused:
            self._paused = False
            self._poll.register(self._listener, select.POLLIN)
