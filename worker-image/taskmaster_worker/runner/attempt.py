"""One attempt as the runner sees it: a control socket to its supervisor, two streams of output, one exit frame.

It is over when its supervisor has reported (or is known to be lost, and everything below it dead) *and* its output has
been read to the end. The end of output is not waited for longer than `DRAIN_SECONDS`: a descriptor may have been passed
to a process outside the tree.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, cast

from taskmaster_worker.runner.channel import Channel
from taskmaster_worker.runner.fork_server import ForkServer
from taskmaster_worker.runner.kernel import timestamp
from taskmaster_worker.runner.messages import Exit, Start, Started
from taskmaster_worker.runner.output import Output
from taskmaster_worker.runner.printer import Printer
from taskmaster_worker.runner.spec import Report, Spec
from taskmaster_worker.runner.text import last_bytes, safe_text
from taskmaster_worker.runner.zygote import log

DRAIN_SECONDS = 1.0
ERROR_BYTES = 4096
_OVERDUE_SECONDS = 5.0


class Attempt:
    """From the start frame to the exit frame."""

    def __init__(
        self,
        start: Start,
        *,
        token: int,
        server: ForkServer,
        printer: Printer,
        send: Callable[[Started | Exit], None],
        on_over: Callable[[Attempt], None],
    ) -> None:
        self.id = start["id"]
        self.token = token
        self.server = server
        self._send = send
        self._on_over = on_over
        self._output = Output(start["task"], printer, on_end=self._finish_if_over)
        self._report: Report | None = None
        self._lost = False
        self._sent = False
        self._start_time = ""
        self._burial: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, on_message=self._heard, on_end=self._deserted)
        descriptors = [theirs.detach()]
        try:
            descriptors += [self._output.open(name) for name in ("stdout", "stderr")]
        except OSError:
            self._output.close()
            self._channel.close()
            os.close(descriptors[0])
            raise
        server.fork(token, descriptors)

    def begin(self, spec: Spec) -> None:
        """Tell the supervisor what to run."""
        self._channel.send(cast("dict[str, Any]", spec))

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the tree, SIGKILL after the grace; a supervisor that does not manage is killed as well."""
        self._channel.send({"graceSeconds": grace_seconds})
        self._timers.append(self._loop.call_later(grace_seconds + _OVERDUE_SECONDS, self._deserted))

    def end(self) -> None:
        """SIGKILL to the tree at once."""
        self._channel.finish()

    def lose(self, start_error: str = "") -> None:
        """Close the attempt without a report; called when every process of it is known to be dead."""
        if self._report is None and not self._lost:
            self._lost = True
            if start_error:
                now = timestamp()
                self._report = Report(exitCode=126, signal=None, startTime=now, endTime=now, startError=start_error)
            self._channel.close()
            self._drain()

    def _heard(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self._start_time = message["started"]
            self._send(Started(type="started", id=self.id, startTime=self._start_time))
        else:
            self._report = cast("Report", message)
            self._channel.close()
            self.server.ended()
            self._drain()

    def _deserted(self) -> None:
        if self._report is None and not self._lost and self._burial is None:
            log("error", "supervisor lost", attempt=self.id)
            self._burial = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        if await self.server.bury(self.token):
            self.lose()

    def _drain(self) -> None:
        if not self._output.ended:
            self._timers.append(self._loop.call_later(DRAIN_SECONDS, self._output.close))
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if self._sent or not self._output.ended or (self._report is None and not self._lost):
            return
        self._sent = True
        for timer in self._timers:
            timer.cancel()
        self._send(self._exit())
        self._on_over(self)

    def _exit(self) -> Exit:
        now = timestamp()
        report = self._report or Report(exitCode=None, signal=None, startTime=self._start_time or now, endTime=now)
        frame = cast("Exit", {"type": "exit", "id": self.id, **report, "tail": self._output.tail.text()})
        if self._report is None:
            frame["supervisorLost"] = True
        if "startError" in frame:
            frame["startError"] = safe_text(frame["startError"])[:ERROR_BYTES]
        if "resultError" in frame:
            frame["resultError"] = safe_text(frame["resultError"])[:ERROR_BYTES]
        if "error" in frame:
            error = frame["error"]
            frame["error"] = {
                "type": safe_text(error["type"])[:256],
                "message": safe_text(error["message"])[:ERROR_BYTES],
                "traceback": last_bytes(safe_text(error["traceback"]), ERROR_BYTES),
            }
        return frame


def attempt_directory(base: str, token: int) -> str:
    """Return where an attempt keeps its script and result."""
    return os.path.join(base, str(token))
