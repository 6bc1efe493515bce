"""One connection to the runner: who the peer is, its hello, its frames, and why it ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from taskmaster_worker.agent.ending import RUNNER_DIED
from taskmaster_worker.runner.frames import Decoder, FrameError
from taskmaster_worker.runner.messages import PROTOCOL_VERSION

logger = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")


class Connection(asyncio.Protocol):
    """Passes on what comes after the hello; `greeted` is set by the hello or the end, `closed` gets the reason."""

    def __init__(self, on_frame: Callable[[dict[str, Any]], None]) -> None:
        self.greeted = asyncio.Event()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.peer_uid = -1
        self._on_frame = on_frame
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the peer's user id."""
        self._transport = cast("asyncio.Transport", transport)
        peer: socket.socket = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, self.peer_uid, _ = _CREDENTIALS.unpack(credentials)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say why it has ended."""
        self._finish(RUNNER_DIED if exc is None else f"the connection to the runner failed: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take the frames apart; what cannot be understood ends the connection."""
        try:
            for frame in self._decoder.feed(data):
                if self.closed.done():
                    return
                if self.greeted.is_set():
                    self._on_frame(frame)
                else:
                    self._greet(frame)
        except (FrameError, KeyError, TypeError, ValueError) as error:
            logger.exception("the runner sent something that cannot be understood")
            self.close(f"cannot understand the runner: {error!r}")

    def send(self, data: bytes) -> None:
        """Send a frame, unless the connection has ended."""
        if self._transport is not None and not self.closed.done():
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """End the connection at once."""
        self._finish(reason)
        if self._transport is not None:
            self._transport.abort()

    def _greet(self, frame: dict[str, Any]) -> None:
        version = frame.get("version")
        if frame.get("type") != "hello" or version != PROTOCOL_VERSION:
            self.close(f"the runner speaks version {version}, this agent {PROTOCOL_VERSION}: use one release for both")
            return
        self.greeted.set()

    def _finish(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self.greeted.set()
