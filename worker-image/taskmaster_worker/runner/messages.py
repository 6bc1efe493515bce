"""What the agent and the runner say to each other, one type per frame.

The agent's first frame is `hello`; the runner ends whatever is left of an earlier connection and then answers with its
own. Every `start` is answered by at most one `started` and exactly one `exit`, unless the connection ends first;
between those come any number of `progress` and `checkpoint` and at most one `stalled`. The types are for readers and
for mypy; what is checked at run time is in `parsing`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

PROTOCOL_VERSION = 2


class AgentHello(TypedDict):
    """First frame of the agent."""

    type: Literal["hello"]
    version: int
    incarnation: str


class RunnerHello(TypedDict):
    """The runner's answer: it is empty now and ready."""

    type: Literal["hello"]
    version: int
    python: str
    pid: int


class TaskIdentity(TypedDict):
    """Whose attempt this is; becomes `TASK_NAME`, `TASK_NAMESPACE`, `TASK_UID`, `TASK_ATTEMPT`."""

    name: str
    namespace: str
    uid: str
    attempt: int


class Script(TypedDict):
    """A source text and the program that runs it; words after the program are its arguments, as in a `#!` line."""

    interpreter: str
    source: str


class PythonCall(TypedDict):
    """`package.module:function`, called with `args` as keyword arguments."""

    callable: str
    args: NotRequired[dict[str, Any]]


class Run(TypedDict, total=False):
    """Exactly one member."""

    command: list[str]
    script: Script
    python: PythonCall


class Start(TypedDict):
    """Start an attempt; `id` is `<uid>/<attempt>`, `checkpoint` the data of the last one of this run of the Task."""

    type: Literal["start"]
    id: str
    task: TaskIdentity
    run: Run
    env: NotRequired[dict[str, str]]
    workingDir: NotRequired[str]
    checkpoint: NotRequired[Any]
    dependencies: NotRequired[dict[str, Any]]
    memoryBytes: NotRequired[int]
    stallSeconds: NotRequired[int]


class Stop(TypedDict):
    """SIGTERM to the whole tree, SIGKILL after the grace; may be repeated with a shorter grace."""

    type: Literal["stop"]
    id: str
    graceSeconds: float


class Checkpointed(TypedDict):
    """The checkpoint with this sequence is in the API server or, with `error`, will not be."""

    type: Literal["checkpointed"]
    id: str
    sequence: int
    error: NotRequired[str]


class Started(TypedDict):
    """The task's process exists (it may still turn out not to be executable)."""

    type: Literal["started"]
    id: str
    startTime: str


class ProgressValue(TypedDict, total=False):
    """How far a task says it is: integers from 0 to 2^53 - 1, and safe text of at most 256 characters."""

    current: int
    total: int
    message: str


class Progress(TypedDict):
    """The latest progress, at most four a second; the last one always comes before `exit`."""

    type: Literal["progress"]
    id: str
    progress: ProgressValue


class Checkpoint(TypedDict):
    """A checkpoint, at most 16 KiB; `sequence` grows from 1 within the attempt. Each is answered by `checkpointed`."""

    type: Literal["checkpoint"]
    id: str
    sequence: int
    data: Any


class Stalled(TypedDict):
    """No output, progress or checkpoint for `stallSeconds`; said once, and nothing is stopped."""

    type: Literal["stalled"]
    id: str


class PythonError(TypedDict):
    """An exception that left the callable; each text is bounded.

    `types` names its class and their bases, each as `Name` and as `module.Qualname`. `retryAfterSeconds` comes from a
    `RetryAfter`, `final` from a `Fail`.
    """

    type: str
    types: list[str]
    message: str
    traceback: str
    retryAfterSeconds: NotRequired[int]
    final: NotRequired[bool]


class Exit(TypedDict):
    """The attempt is over and no process of it is left.

    `outOfMemory` is what the tree had, in bytes, when it was killed for being above `memoryBytes`. With `exhausted` no
    process could be made for the attempt (`supervisorLost` is set, too): it never began.
    """

    type: Literal["exit"]
    id: str
    exitCode: int | None
    signal: int | None
    startTime: str
    endTime: str
    tail: str
    result: NotRequired[Any]
    resultError: NotRequired[str]
    error: NotRequired[PythonError]
    startError: NotRequired[str]
    supervisorLost: NotRequired[bool]
    exhausted: NotRequired[bool]
    outOfMemory: NotRequired[int]


FromRunner = Started | Progress | Checkpoint | Stalled | Exit
"""What the runner says about an attempt."""
