"""The runner's side of a zygote: start it, ask it for supervisors, notice its death, start it again.

Requests wait in a queue while the socket is full (descriptors in flight are limited) or the zygote still imports. A
zygote that dies before it was ready is started again without preloading, so that a module that crashes the interpreter
costs its own tasks only. A death while ready restarts it as it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from taskmaster_worker.runner.zygote import BURY, CONTROL, FORK, READY, REAP, REQUEST, log

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOT = (
    f"import sys; {_ROOT!r} in sys.path or sys.path.append({_ROOT!r})\n"
    "from taskmaster_worker.runner.zygote import main; main()"
)
_REAP_SECONDS = 1.0


class ForkServer:
    """One zygote at a time."""

    def __init__(
        self,
        name: str,
        *,
        flags: Sequence[str],
        preload: Sequence[str] = (),
        optional_preload: Sequence[str] = (),
        environment: Mapping[str, str],
        open_files: int,
        on_death: Callable[[ForkServer], None],
    ) -> None:
        self.name = name
        self.pid = 0
        self.ready = False
        self._flags = flags
        self._preload = list(preload)
        self._optional = list(optional_preload)
        self._environment = dict(environment)
        self._open_files = open_files
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._burials: dict[int, asyncio.Future[bool]] = {}
        self._reap_timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(os.getpid()), str(self._open_files), *self._preload, *self._optional]
        self.pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *self._flags, "-c", _BOOT, *arguments],
            self._environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, 2, 1),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE),
        )
        theirs.close()
        ours.setblocking(False)
        self.ready = False
        self._socket = ours
        self._loop.add_reader(ours, self._read)
        self._flush()

    def fork(self, token: int, descriptors: list[int]) -> None:
        """Ask for a supervisor. The descriptors are the caller's to give away: they are closed here once sent."""
        self._send(FORK, token, descriptors)

    def ended(self) -> None:
        """Note that a supervisor has ended, so that its zombie is collected soon."""
        if self._reap_timer is None:
            self._reap_timer = self._loop.call_later(_REAP_SECONDS, self._reap)

    async def bury(self, token: int) -> bool:
        """Kill a supervisor and all below it; True when nothing is left, False if the zygote itself died meanwhile."""
        if token not in self._burials:
            self._burials[token] = self._loop.create_future()
            self._send(BURY, token, [])
        return await asyncio.shield(self._burials[token])

    def kill(self) -> None:
        """Kill the zygote; `on_death` follows."""
        if self._socket is not None:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the socket, upon which the zygote ends everything below it and exits."""
        self._disconnect()

    def _reap(self) -> None:
        self._reap_timer = None
        self._send(REAP, 0, [])

    def _send(self, operation: bytes, token: int, descriptors: list[int]) -> None:
        self._queue.append((REQUEST.pack(operation, token), descriptors))
        if len(self._queue) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._queue and self._socket is not None:
            request, descriptors = self._queue[0]
            try:
                socket.send_fds(self._socket, [request], descriptors)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    self._loop.add_writer(self._socket, self._flush)
                    return
                if self._socket is None:
                    return
                log("warning", "fork server refused a request", server=self.name, error=str(error))
            self._queue.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(REQUEST.size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        operation, token = REQUEST.unpack(data)
        if operation == READY:
            self.ready = True
        elif operation == BURY and (burial := self._burials.pop(token, None)) is not None:
            burial.set_result(True)

    def _died(self) -> None:
        log("error", "fork server ended", server=self.name, pid=self.pid, ready=self.ready)
        self._disconnect()
        self.pid = 0
        if not self.ready and self._optional:
            log("error", "fork server is started again without preloading", server=self.name, preload=self._optional)
            self._optional = []
        self._on_death(self)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        for _, descriptors in self._queue:
            for descriptor in descriptors:
                os.close(descriptor)
        self._queue.clear()
        for burial in self._burials.values():
            burial.set_result(False)
        self._burials.clear()
