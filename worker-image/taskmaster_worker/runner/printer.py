"""The runner's standard output: JSON lines, written without ever waiting.

Whoever collects a container's log may be slow or gone. A task must not notice, so what does not fit into a bounded
buffer is dropped and counted, and a line says how much as soon as there is room again.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from taskmaster_worker.runner.kernel import timestamp

BUFFER_BYTES = 1024 * 1024


def json_line(fields: dict[str, Any]) -> bytes:
    """Return one line of JSON in UTF-8."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def open_nonblocking(descriptor: int) -> int:
    """Return a descriptor of the same file that never blocks.

    Opened anew where possible, since the flag would otherwise be shared with every process that has this descriptor.
    """
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        os.set_blocking(descriptor, False)
        return descriptor


class Printer:
    """A bounded buffer in front of a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._waiting = False
        self._closed = False
        self._unreported = 0
        self.dropped_lines = 0

    @property
    def full(self) -> bool:
        """Whether a line would be dropped."""
        return self._closed or len(self._buffer) >= BUFFER_BYTES

    def print(self, line: bytes) -> None:
        """Write a line, or keep it until it can be written, or drop it."""
        if self.full:
            self.drop(1)
            return
        if self._unreported:
            lost, self._unreported = self._unreported, 0
            note = "the log is read too slowly: lines were dropped"
            self._buffer += json_line({"time": timestamp(), "level": "warning", "message": note, "lines": lost})
        self._buffer += line
        if not self._waiting:
            self._write()

    def drop(self, lines: int) -> None:
        """Count lines that were not printed."""
        self.dropped_lines += lines
        self._unreported += lines

    def _write(self) -> None:
        try:
            written = os.write(self._descriptor, self._buffer)
        except BlockingIOError:
            written = 0
        except OSError:  # closed by its reader: nobody will see anything any more
            self._closed = True
            self._buffer.clear()
            written = 0
        del self._buffer[:written]
        if self._buffer and not self._waiting:
            self._waiting = True
            self._loop.add_writer(self._descriptor, self._write)
        elif not self._buffer and self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._descriptor)
