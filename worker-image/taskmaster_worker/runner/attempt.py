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
from taskmaster_worker.runner.ending import exit_frame, lost_frame
from taskmaster_worker.runner.fork_server import ForkServer
from taskmaster_worker.runner.kernel import timestamp
from taskmaster_worker.runner.messages import Checkpoint, Checkpointed, FromRunner, Progress, Stalled, Start, Started
from taskmaster_worker.runner.output import Output
from taskmaster_worker.runner.printer import Printer
from taskmaster_worker.runner.spec import Report, Spec
from taskmaster_worker.runner.stall import StallWatch
from taskmaster_worker.runner.text import safe_text
from taskmaster_worker.runner.zygote import log

DRAIN_SECONDS = 1.0
_OVERDUE_SECONDS = 15.0


class Attempt:
    """From the start frame to the exit frame."""

    def __init__(
        self,
        start: Start,
        *,
        token: int,
        server: ForkServer,
        printer: Printer,
        send: Callable[[FromRunner], None],
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
        self._exhausted = False
        self._sent = False
        self._start_time = ""
        self._burial: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stall_seconds = start.get("stallSeconds")
        self._stall: StallWatch | None = None
        self._last_news = 0.0
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
        self._watch_no_more()
        self._channel.send({"graceSeconds": grace_seconds})
        self._timers.append(self._loop.call_later(grace_seconds + _OVERDUE_SECONDS, self._deserted))

    def checkpointed(self, answer: Checkpointed) -> None:
        """Tell the task what became of its checkpoint."""
        message: dict[str, Any] = {"checkpointed": answer["sequence"]}
        self._channel.send({**message, "error": answer["error"]} if "error" in answer else message)

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
        match message:
            case {"started": time}:
                self._start_time = time
                self._send(Started(type="started", id=self.id, startTime=time))
                if self._stall_seconds is not None:
                    self._watch(self._stall_seconds)
            case {"progress": value}:
                self._last_news = self._loop.time()
                self._send(Progress(type="progress", id=self.id, progress=value))
            case {"checkpoint": data, "sequence": sequence}:
                self._last_news = self._loop.time()
                self._send(Checkpoint(type="checkpoint", id=self.id, sequence=sequence, data=data))
            case {"note": text}:
                self._output.note(safe_text(text))
            case {"exhausted": reason}:
                log("error", "no process for the attempt", attempt=self.id, reason=str(reason))
                self._exhausted = True
                self.server.ended()
                self.lose()
            case _:
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
        self._watch_no_more()
        for timer in self._timers:
            timer.cancel()
        tail = self._output.tail.text()
        if self._report is not None:
            self._send(exit_frame(self.id, self._report, tail))
        else:
            self._send(lost_frame(self.id, start_time=self._start_time, tail=tail, exhausted=self._exhausted))
        self._on_over(self)

    def _watch(self, seconds: float) -> None:
        self._last_news = self._loop.time()
        self._stall = StallWatch(
            seconds,
            last_sign=lambda: max(self._last_news, self._output.last_read),
            on_stall=lambda: self._send(Stalled(type="stalled", id=self.id)),
        )

    def _watch_no_more(self) -> None:
        if self._stall is not None:
            self._stall.cancel()


def attempt_directory(base: str, token: int) -> str:
    """Return where an attempt keeps its script and result."""
    return os.path.join(base, str(token))
