"""What the agent and the runner say to each other, one type per frame.

The agent's first frame is `hello`; the runner ends whatever is left of an earlier connection and then answers with its
own. Every `start` is answered by at most one `started` and exactly one `exit`, unless the connection ends first. The
types are for readers and for mypy; `parse_start` is the only check at run time that the runner makes, since the peer is
our own agent: a frame of the wrong shape is an error of ours, not of a user.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, cast

PROTOCOL_VERSION = 1


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
    """Start an attempt; `id` is `<uid>/<attempt>`."""

    type: Literal["start"]
    id: str
    task: TaskIdentity
    run: Run
    env: NotRequired[dict[str, str]]
    workingDir: NotRequired[str]


class Stop(TypedDict):
    """SIGTERM to the whole tree, SIGKILL after the grace; may be repeated with a shorter grace."""

    type: Literal["stop"]
    id: str
    graceSeconds: float


class Started(TypedDict):
    """The task's process exists (it may still turn out not to be executable)."""

    type: Literal["started"]
    id: str
    startTime: str


class PythonError(TypedDict):
    """An exception that left the callable; each text is bounded."""

    type: str
    message: str
    traceback: str


class Exit(TypedDict):
    """The attempt is over and no process of it is left."""

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


class MessageError(Exception):
    """A frame that is JSON but not one of ours."""


def parse_start(message: dict[str, Any]) -> Start:
    """Check the shape of a `start` frame.

    Raises:
        MessageError: a member is missing or of the wrong type.
    """
    task, run, env = message.get("task"), message.get("run"), message.get("env") or {}
    if not isinstance(message.get("id"), str):
        raise MessageError("start without an id")
    if not isinstance(task, dict) or not {"name", "namespace", "uid", "attempt"} <= task.keys():
        raise MessageError("start without a complete task")
    if not isinstance(run, dict) or len(run) != 1 or not run.keys() <= {"command", "script", "python"}:
        raise MessageError("run needs exactly one of command, script, python")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise MessageError("env must map names to strings")
    return Start(
        type="start",
        id=message["id"],
        task=TaskIdentity(name=task["name"], namespace=task["namespace"], uid=task["uid"], attempt=task["attempt"]),
        run=cast("Run", run),
        env=env,
        workingDir=message.get("workingDir") or "",
    )
