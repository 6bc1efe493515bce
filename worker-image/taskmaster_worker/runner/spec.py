"""What the runner tells a supervisor, and what it hears back; both as frames on the attempt's control socket.

One `Spec` goes down first, then any number of `StopOrder` and `Answer`. Up comes `{"started": time}`, then any number
of `{"progress": value}`, `CheckpointMade` and `{"note": text}` (for the attempt's log), and when no process of the
attempt is left one `Report`; or only `{"exhausted": reason}`, where no process can be made. Either side's end of the
socket closing means that the other has to finish alone.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from taskmaster_worker.runner.messages import PythonError, Run


class Spec(TypedDict):
    """Everything that a supervisor needs; `directory` is to be made, and removed, by the supervisor."""

    run: Run
    env: dict[str, str]
    workingDir: str
    directory: str
    dependencies: dict[str, Any]
    checkpoint: Any
    memoryBytes: int | None


class StopOrder(TypedDict):
    """SIGTERM now, SIGKILL after the grace."""

    graceSeconds: float


class Answer(TypedDict):
    """What became of the checkpoint with this sequence."""

    checkpointed: int
    error: NotRequired[str]


class CheckpointMade(TypedDict):
    """A checkpoint of the task; `sequence` grows from 1."""

    checkpoint: Any
    sequence: int


class Outcome(TypedDict, total=False):
    """What the task's own process wrote before it ended: a failed start, or what became of a callable.

    Checked again by the supervisor, since user code could have written it.
    """

    startError: str
    result: Any
    resultError: str
    error: PythonError


class Report(TypedDict):
    """The end of an attempt as its supervisor saw it."""

    exitCode: int | None
    signal: int | None
    startTime: str
    endTime: str
    result: NotRequired[Any]
    resultError: NotRequired[str]
    error: NotRequired[PythonError]
    startError: NotRequired[str]
    outOfMemory: NotRequired[int]
