"""One connection on the runner's socket.

Only a peer with the agent's user id is heard. Its first frame has to be `hello`; from then on the `Gate` decides when
it is the agent's connection. Anything out of form closes the connection with a logged reason, which kills everything of
it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Protocol, cast

from taskmaster_worker.runner.frames import Decoder, FrameError, encode
from taskmaster_worker.runner.parsing import MessageError, parse_checkpointed, parse_start, parse_stop
from taskmaster_worker.runner.runner import Runner
from taskmaster_worker.runner.zygote import log

_CREDENTIALS = struct.Struct("3i")


class Gate(Protocol):
    """Who may be the agent's connection, one at a time."""

    def asked(self, connection: Connection, hello: dict[str, Any]) -> None:
        """A connection has said hello."""

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""


class Connection(asyncio.Protocol):
    """Frames of one peer."""

    def __init__(self, runner: Runner, gate: Gate, *, agent_uid: int | None) -> None:
        self._runner = runner
        self._gate = gate
        self._agent_uid = agent_uid
        self._decoder = Decoder()
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self.adopted = False

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look at the peer's user id."""
        self._transport = cast("asyncio.Transport", transport)
        peer: socket.socket = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if self._agent_uid is not None and uid != self._agent_uid:
            self.close(f"peer has user id {uid}, the agent has {self._agent_uid}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the gate."""
        self._transport = None
        self._gate.lost(self)

    def data_received(self, data: bytes) -> None:
        """Act upon each frame."""
        try:
            for message in self._decoder.feed(data):
                if not self.closed:
                    self._act(message)
        except (FrameError, MessageError) as error:
            self.close(str(error))

    def send(self, message: Any) -> None:
        """Send a frame, unless the connection has ended."""
        if self._transport is not None and not self.closed:
            self._transport.write(encode(message))

    def close(self, reason: str) -> None:
        """Close at once and say why in the log."""
        if self._transport is not None and not self.closed:
            log("warning", "connection closed", reason=reason)
            self._transport.abort()

    def finish(self, reason: str) -> None:
        """Close after everything has been sent."""
        if self._transport is not None:
            log("warning", "connection closed", reason=reason)
            self._transport.close()

    def _act(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "hello" if not self._asked:
                self._asked = True
                self._gate.asked(self, message)
            case "start" if self.adopted:
                self._runner.start(parse_start(message), self.send)
            case "stop" if self.adopted:
                self._runner.stop(parse_stop(message))
            case "checkpointed" if self.adopted:
                self._runner.checkpointed(parse_checkpointed(message))
            case kind if self.adopted:
                log("info", "frame of unknown type was ignored", type=str(kind))
            case kind:
                raise MessageError(f"{kind!r} came before hello was answered")
