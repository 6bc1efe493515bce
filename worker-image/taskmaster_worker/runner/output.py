"""Reading what a task prints: always, and never so much that the neighbours have to wait.

Each stream is a pipe. One bounded read per turn of the event loop keeps a noisy task from starving the others.
Everything goes into the tail; every line goes to the runner's log as a JSON line, up to a rate: a task may print
`BURST_BYTES` at once and `RATE_BYTES` per second, each line counting `LINE_COST` bytes more than it has. Above that its
lines are counted, not printed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from taskmaster_worker.runner.kernel import timestamp
from taskmaster_worker.runner.messages import TaskIdentity
from taskmaster_worker.runner.printer import Printer, json_line
from taskmaster_worker.runner.text import Tail, safe_text

READ_BYTES = 32 * 1024
LINE_BYTES = 16 * 1024
LINE_COST = 256
RATE_BYTES = 1024 * 1024
BURST_BYTES = 4 * 1024 * 1024


class Output:
    """Both streams of one attempt."""

    def __init__(self, identity: TaskIdentity, printer: Printer, *, on_end: Callable[[], None]) -> None:
        self.tail = Tail()
        self.last_read = 0.0
        """When something was read last, on the monotonic clock."""
        self._identity = identity
        self._printer = printer
        self._on_end = on_end
        self._streams: set[Stream] = set()
        self._credit = float(BURST_BYTES)
        self._credit_time = time.monotonic()
        self._unprinted = 0

    @property
    def ended(self) -> bool:
        """Whether both streams have ended or were closed."""
        return not self._streams

    def open(self, name: str) -> int:
        """Make a pipe and read it as the stream of this name; return the end to write to, which the caller closes."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._streams.add(Stream(name, reader, self))
        return writer

    def close(self) -> None:
        """Stop reading, whether the streams have ended or not."""
        for stream in list(self._streams):
            stream.close()

    def muted(self) -> bool:
        """Whether the attempt has printed more than it may, for now."""
        now = time.monotonic()
        self._credit = min(BURST_BYTES, self._credit + (now - self._credit_time) * RATE_BYTES)
        self._credit_time = now
        return self._credit <= 0

    def skip(self, lines: int) -> None:
        """Count lines that are not printed because the attempt is muted."""
        self._unprinted += lines

    def lines(self, stream: str, lines: list[bytes]) -> None:
        """Print whole lines."""
        time_text = timestamp()
        for count, line in enumerate(lines):
            if self._credit <= 0:
                self.skip(len(lines) - count)
                return
            if self._printer.full:
                self._printer.drop(len(lines) - count)
                return
            if self._unprinted:
                note = f"[{self._unprinted} lines were not printed: more than {RATE_BYTES} bytes per second]"
                self._unprinted = 0
                self._print(time_text, "runner", note)
            self._credit -= len(line) + LINE_COST
            self._print(time_text, stream, safe_text(line))

    def note(self, text: str) -> None:
        """Print a line of our own about the attempt."""
        self._print(timestamp(), "runner", text)

    def stream_ended(self, stream: Stream) -> None:
        """Forget a stream; called by it."""
        self._streams.discard(stream)
        if not self._streams:
            if self._unprinted:
                self.note(f"[{self._unprinted} lines were not printed]")
            self._on_end()

    def _print(self, time_text: str, stream: str, message: str) -> None:
        task = self._identity
        self._printer.print(
            json_line(
                {
                    "time": time_text,
                    "task": task["name"],
                    "namespace": task["namespace"],
                    "uid": task["uid"],
                    "attempt": task["attempt"],
                    "stream": stream,
                    "message": message,
                }
            )
        )


class Stream:
    """One pipe, cut into lines of at most `LINE_BYTES`."""

    def __init__(self, name: str, descriptor: int, output: Output) -> None:
        self._name = name
        self._descriptor = descriptor
        self._output = output
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Print what is left of a line without an end, and close the pipe."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        if self._rest:
            self._output.lines(self._name, [self._rest])
        self._output.stream_ended(self)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._output.tail.add(data)
        self._output.last_read = self._loop.time()
        if self._output.muted():
            self._output.skip(data.count(b"\n") or 1)
            self._rest = data[data.rfind(b"\n") + 1 :] if b"\n" in data else b""
            return
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) >= LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._output.lines(self._name, [part for line in lines for part in _parts(line)])


def _parts(line: bytes) -> list[bytes]:
    if len(line) <= LINE_BYTES:
        return [line]
    return [line[start : start + LINE_BYTES] for start in range(0, len(line), LINE_BYTES)]
