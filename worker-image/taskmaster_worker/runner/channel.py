"""The runner's end of an attempt's control socket: frames both ways, without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

from taskmaster_worker.runner.frames import Decoder, FrameError, encode

_READ_BYTES = 128 * 1024


class Channel:
    """Calls `on_message` per frame, and `on_end` once: when the other end closes or breaks the format."""

    def __init__(
        self, end: socket.socket, *, on_message: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        end.setblocking(False)
        self._socket = end
        self._on_message = on_message
        self._on_end = on_end
        self._decoder = Decoder()
        self._outgoing = bytearray()
        self._finishing = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame; what the socket does not take at once follows when it can."""
        if self._closed or self._finishing:
            return
        waiting = bool(self._outgoing)
        self._outgoing += encode(message)
        if not waiting:
            self._write()

    def finish(self) -> None:
        """Send nothing more: the other end sees the end of the stream, and its report can still come."""
        if not self._closed and not self._finishing:
            self._finishing = True
            if self._outgoing:
                self._outgoing.clear()
                self._loop.remove_writer(self._socket)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close without a call of `on_end`."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:  # the reader will see the end
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
            messages = self._decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data, messages = b"", []
        for message in messages:
            self._on_message(message)
        if not data and not self._closed:
            self.close()
            self._on_end()
