"""Everything below a supervisor: forking into it, waiting for its end, and ending it.

The supervisor waits in one place for everything: orders, SIGCHLD, the context socket, and what is due by the clock. A
short attempt sees no timer at all: the first is due after half a second.
"""

from __future__ import annotations

import os
import select
import signal
import time

from taskmaster_worker.runner import descendants, frames, kernel
from taskmaster_worker.runner.memory import MemoryWatch
from taskmaster_worker.runner.task_context import TaskContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from taskmaster_worker.runner.spec import Spec

ORPHAN_GRACE_SECONDS = 0.1
_KILL_REPEAT_SECONDS = 0.005


class Tree:
    """The processes of one attempt, the orders about them, and what they say."""

    def __init__(
        self, spec: Spec, control: socket.socket, decoder: frames.Decoder, orders: list[dict[str, Any]]
    ) -> None:
        """Make the task's files and its context socket.

        Raises:
            OSError: the directory cannot be written.
        """
        self.out_of_memory = 0
        self._control = control
        self._decoder = decoder
        self._orders = orders
        self._kill_time: float | None = None  # monotonic; SIGTERM was sent when it is set
        self._wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(control, select.POLLIN)
        self.context = TaskContext(spec, self._poll, self.tell)
        self._memory = MemoryWatch(spec["memoryBytes"])

    def tell(self, message: dict[str, Any]) -> None:
        """Send a frame to the runner; the end of its socket is noticed elsewhere."""
        try:
            self._control.sendall(frames.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            return

    def leave(self) -> None:
        """Close what the task's process, a fork of this one, has no use for."""
        self._control.close()
        self.context.close()

    def wait(self, main: int) -> tuple[int, str]:
        """Return the main process's wait status and its end time, once no process is left."""
        status, end_time = 0, ""
        while True:
            self._obey()
            ended, more = descendants.reap()
            for pid, pid_status in ended:
                if pid == main:
                    status, end_time = pid_status, kernel.timestamp()
            if not more:
                self.context.finish()
                return status, end_time
            if end_time:
                self._stop_within(ORPHAN_GRACE_SECONDS, again=False)
            self._sleep()

    def _obey(self) -> None:
        orders, self._orders = self._orders, []
        for order in orders:
            if "checkpointed" in order:
                self.context.answer(order)  # type: ignore[arg-type]
            else:
                self._stop_within(order["graceSeconds"], again=True)

    def _stop_within(self, seconds: float, *, again: bool) -> None:
        if self._kill_time is not None and not again:
            return
        kill_time = time.monotonic() + seconds
        self._kill_time = kill_time if self._kill_time is None else min(self._kill_time, kill_time)
        if seconds > 0:
            descendants.terminate_all()

    def _sleep(self) -> None:
        seconds = self._act() - time.monotonic()
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000 + 1):
            if descriptor == self._wake:
                os.read(self._wake, 4096)
            elif descriptor == self._control.fileno():
                self._listen()
            else:
                self.context.ready(descriptor)

    def _act(self) -> float:
        """Do what is due, and return when something is due again, on the monotonic clock."""
        now = time.monotonic()
        if excess := self._memory.excess(now):
            self.out_of_memory = excess
            self._kill_time = now
        self.context.tick(now)
        due = min(self._memory.due, self.context.due)
        if self._kill_time is None:
            return due
        if now < self._kill_time:
            return min(due, self._kill_time)
        descendants.kill_all()
        return min(due, now + _KILL_REPEAT_SECONDS)

    def _listen(self) -> None:
        try:
            data = self._control.recv(65536)
        except ConnectionResetError:  # its end closed with something of ours unread
            data = b""
        if data:
            self._orders += self._decoder.feed(data)
        else:
            self._poll.unregister(self._control)
            self._orders.append({"graceSeconds": 0})
