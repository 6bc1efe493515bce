"""What a task knows and says besides its output: the files of its directory and its context socket.

Progress and checkpoints come by either way, and go to the runner. Checkpoints are numbered here; one that came by the
socket is answered when the runner passes the answer on, one that came by the file is not.
"""

from __future__ import annotations

import json
import math
import os
import time

from taskmaster_worker.runner import result
from taskmaster_worker.runner.context_server import ContextServer
from taskmaster_worker.runner.progress import ProgressGate, parse_progress
from taskmaster_worker.runner.watched_file import WatchedFile
from taskmaster_worker.sdk.wire import MAX_CHECKPOINT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    import socket
    from collections.abc import Callable
    from typing import Any

    from taskmaster_worker.runner.spec import Answer, Spec

FILE_SECONDS = 0.5
_PROGRESS_BYTES = 16 * 1024


class TaskContext:
    """The files and the socket of one attempt; `tell` sends to the runner."""

    def __init__(self, spec: Spec, poll: select.poll, tell: Callable[[dict[str, Any]], None]) -> None:
        """Write the files that the task finds, and listen.

        Raises:
            OSError: a file cannot be written.
        """
        self._directory = spec["directory"]
        self._tell = tell
        self._gate = ProgressGate(lambda value: tell({"progress": value}))
        self._sequence = 0
        self._asked: dict[int, socket.socket] = {}
        self._files_due = time.monotonic() + FILE_SECONDS
        self._write("dependencies", _compact(spec["dependencies"]))
        offered = b""
        if spec["checkpoint"] is not None:
            offered = _compact(spec["checkpoint"])
            self._write("checkpoint", offered)
        self._progress_file = WatchedFile(
            self._path("progress"), "TASK_PROGRESS_FILE", parse_progress, limit=_PROGRESS_BYTES
        )
        self._checkpoint_file = WatchedFile(
            self._path("checkpoint"), "TASK_CHECKPOINT_FILE", _same, limit=MAX_CHECKPOINT_BYTES, content=offered
        )
        self._server: ContextServer | None = None
        try:
            self._server = ContextServer(self._path("context"), poll, self._heard)
        except OSError as error:
            tell({"note": f"[the SDK cannot report progress or checkpoints: no socket: {error.strerror}]"})

    @property
    def variables(self) -> dict[str, str]:
        """What the task's environment says about it."""
        variables = {
            f"TASK_{name.upper()}_FILE": self._path(name)
            for name in ("result", "checkpoint", "progress", "dependencies")
        }
        return variables if self._server is None else {**variables, "TASK_CONTEXT_SOCKET": self._path("context")}

    @property
    def due(self) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        return min(self._files_due, self._gate.due)

    def tick(self, now: float) -> None:
        """Look at the files and pass progress on, as far as it is time."""
        if now >= self._files_due:
            self._files_due = now + FILE_SECONDS
            self._take(self._progress_file.changed(), self._checkpoint_file.changed())
        self._gate.tick(now)

    def ready(self, descriptor: int) -> None:
        """Read a descriptor on which something has come, if it is of the context socket."""
        if self._server is not None:
            self._server.ready(descriptor)

    def answer(self, answer: Answer) -> None:
        """Pass on what became of a checkpoint."""
        connection = self._asked.pop(answer["checkpointed"], None)
        if connection is not None and self._server is not None:
            self._server.answer(connection, {"error": answer["error"]} if "error" in answer else {})

    def finish(self) -> None:
        """Pass on everything that the task has left, now that it has ended."""
        self._files_due = math.inf
        if self._server is not None:
            self._server.drain()
        self._take(self._progress_file.read(), self._checkpoint_file.read())
        self._gate.finish()
        for file in (self._progress_file, self._checkpoint_file):
            if file.problem:
                self._tell({"note": f"[{file.problem}]"})

    def close(self) -> None:
        """Close what a fork of this process must not keep open."""
        if self._server is not None:
            self._server.close()

    def _heard(self, connection: socket.socket, message: dict[str, Any]) -> None:
        if "progress" in message:
            try:
                self._gate.offer(parse_progress(message["progress"]), time.monotonic())
            except ValueError as error:
                self._tell({"note": f"[progress was ignored: {error}]"})
        elif "checkpoint" in message:
            try:
                data = result.checked(message["checkpoint"], limit=MAX_CHECKPOINT_BYTES)
            except result.ResultError as error:
                if self._server is not None:
                    self._server.answer(connection, {"error": str(error)})
            else:
                self._asked[self._checkpoint(data)] = connection

    def _take(self, progress: Any, checkpoint: Any) -> None:
        if progress is not None:
            self._gate.offer(progress, time.monotonic())
        if checkpoint is not None:
            self._checkpoint(checkpoint)

    def _checkpoint(self, data: Any) -> int:
        self._sequence += 1
        self._tell({"checkpoint": data, "sequence": self._sequence})
        return self._sequence

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _write(self, name: str, content: bytes) -> None:
        with open(self._path(name), "wb", buffering=0) as file:
            file.write(content)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _same(value: Any) -> Any:
    return value
