"""`context`: what a Task's code, in any process of the attempt, can ask about it and say.

Everything comes from the environment and is looked up when asked for: this module may be loaded long before the Task.
Outside of a Task, what a function under test would call does nothing, and what only a Task can have raises.
"""

from __future__ import annotations

import json
import operator
import os
import sys
from typing import TYPE_CHECKING, Any

from taskmaster_worker.sdk.cancellation import cancellation
from taskmaster_worker.sdk.errors import CheckpointError
from taskmaster_worker.sdk.link import Link
from taskmaster_worker.sdk.wire import LARGEST_PROGRESS, MAX_CHECKPOINT_BYTES

if TYPE_CHECKING:
    import logging

_PROGRESS_TIMEOUT_SECONDS = 5.0


class Context:
    """The Task that this process belongs to. There is one per process, `context`."""

    def __init__(self) -> None:
        self._progress = Link(timeout=_PROGRESS_TIMEOUT_SECONDS)
        self._checkpoints = Link(timeout=None)
        self._last_checkpoint: Any = None
        self._dependencies: dict[str, Any] | None = None
        self._logger: logging.Logger | None = None

    @property
    def name(self) -> str:
        """Name of the Task.

        Raises:
            RuntimeError: outside of a Task.
        """
        return _variable("TASK_NAME")

    @property
    def namespace(self) -> str:
        """Namespace of the Task.

        Raises:
            RuntimeError: outside of a Task.
        """
        return _variable("TASK_NAMESPACE")

    @property
    def uid(self) -> str:
        """Unique id of the Task, the same in all attempts.

        Raises:
            RuntimeError: outside of a Task.
        """
        return _variable("TASK_UID")

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1 on.

        Raises:
            RuntimeError: outside of a Task.
        """
        return int(_variable("TASK_ATTEMPT"))

    @property
    def cancelled(self) -> bool:
        """Whether a function marked by `@task` has been told to stop."""
        return cancellation.received

    @property
    def last_checkpoint(self) -> Any:
        """Data of the last checkpoint, of this attempt or of an earlier one; None if there is none."""
        if self._last_checkpoint is None:
            self._last_checkpoint = _read("TASK_CHECKPOINT_FILE")
        return self._last_checkpoint

    @property
    def dependencies(self) -> dict[str, Any]:
        """Results of the Tasks that this one depends on, by name."""
        if self._dependencies is None:
            found = _read("TASK_DEPENDENCIES_FILE")
            if found is None:
                return {}
            self._dependencies = found
        return self._dependencies

    @property
    def logger(self) -> logging.Logger:
        """A logger to standard error, from level INFO on; each message is a line of the Task's log."""
        if self._logger is None:
            self._logger = _make_logger()
        return self._logger

    def progress(self, current: int | None = None, total: int | None = None, message: str = "") -> None:
        """Say how far the Task is; the latest call counts. May be called often, and never fails a Task by itself.

        Raises:
            TypeError: a number is no integer.
            ValueError: a number is negative or beyond 2^53 - 1.
        """
        progress: dict[str, Any] = {"message": str(message)} if message else {}
        for name, number in (("current", current), ("total", total)):
            if number is not None:
                progress[name] = operator.index(number)
                if not 0 <= progress[name] <= LARGEST_PROGRESS:
                    raise ValueError(f"{name} of progress is not from 0 to {LARGEST_PROGRESS}: {number}")
        if "TASK_CONTEXT_SOCKET" in os.environ:
            try:
                self._progress.send(json.dumps({"progress": progress}).encode())
            except OSError:  # the supervisor is gone, and so is this attempt
                return

    def checkpoint(self, data: Any) -> None:
        """Save where to go on from; return when the API server has it. It blocks: in a coroutine use a thread.

        Args:
            data: any JSON but null, at most 16 KiB.

        Raises:
            CheckpointError: it was not saved.
        """
        try:
            text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"not JSON: {error}") from None
        if text == b"null":
            raise CheckpointError("None is no checkpoint: it says that there is none")
        if len(text) > MAX_CHECKPOINT_BYTES:
            message = f"larger than the {MAX_CHECKPOINT_BYTES} bytes allowed: keep it elsewhere and say where"
            raise CheckpointError(message)
        if "TASK_CONTEXT_SOCKET" not in os.environ:
            if "TASK_UID" in os.environ:
                raise CheckpointError("this attempt has no context socket: its log says why")
            return
        try:
            answer = self._checkpoints.ask(b'{"checkpoint":' + text + b"}")
        except OSError as error:
            raise CheckpointError(f"the supervisor of the attempt does not answer: {error}") from error
        if "error" in answer:
            raise CheckpointError(answer["error"])
        self._last_checkpoint = json.loads(text)


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise RuntimeError(f"this process is not part of a Task: ${name} is not set") from None


def _read(variable: str) -> Any:
    try:
        with open(os.environ[variable], "rb") as file:
            return json.loads(file.read() or b"null")
    except (KeyError, FileNotFoundError):
        return None


def _make_logger() -> logging.Logger:
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                print(self.format(record), file=sys.stderr, flush=True)
            except Exception:
                self.handleError(record)

    logger = logging.getLogger("taskmaster.task")
    if not logger.handlers:
        logger.addHandler(Handler())
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


context = Context()
