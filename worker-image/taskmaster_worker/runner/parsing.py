"""The agent's frames, checked as far as the runner depends on them.

The peer is our own agent: a frame of the wrong shape is an error of ours, not of a user.
"""

from __future__ import annotations

from typing import Any, cast

from taskmaster_worker.runner.messages import Checkpointed, Run, Start, Stop, TaskIdentity


class MessageError(Exception):
    """A frame that is JSON but not one of ours."""


def parse_start(message: dict[str, Any]) -> Start:
    """Check the shape of a `start` frame.

    Raises:
        MessageError: a member is missing or of the wrong type.
    """
    task, run, env = message.get("task"), message.get("run"), message.get("env") or {}
    dependencies = message.get("dependencies") or {}
    if not isinstance(message.get("id"), str):
        raise MessageError("start without an id")
    if not isinstance(task, dict) or not {"name", "namespace", "uid", "attempt"} <= task.keys():
        raise MessageError("start without a complete task")
    if not isinstance(run, dict) or len(run) != 1 or not run.keys() <= {"command", "script", "python"}:
        raise MessageError("run needs exactly one of command, script, python")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise MessageError("env must map names to strings")
    if not isinstance(dependencies, dict):
        raise MessageError("dependencies must map names to results")
    start = Start(
        type="start",
        id=message["id"],
        task=TaskIdentity(name=task["name"], namespace=task["namespace"], uid=task["uid"], attempt=task["attempt"]),
        run=cast("Run", run),
        env=env,
        workingDir=message.get("workingDir") or "",
        dependencies=dependencies,
    )
    if "checkpoint" in message:
        start["checkpoint"] = message["checkpoint"]
    if (memory := _positive(message, "memoryBytes")) is not None:
        start["memoryBytes"] = memory
    if (stall := _positive(message, "stallSeconds")) is not None:
        start["stallSeconds"] = stall
    return start


def parse_stop(message: dict[str, Any]) -> Stop:
    """Check the shape of a `stop` frame.

    Raises:
        MessageError: a member is missing or of the wrong type.
    """
    grace = message.get("graceSeconds", 0)
    if not isinstance(grace, int | float) or not isinstance(message.get("id"), str) or grace < 0:
        raise MessageError("stop needs an id and graceSeconds >= 0")
    return Stop(type="stop", id=message["id"], graceSeconds=grace)


def parse_checkpointed(message: dict[str, Any]) -> Checkpointed:
    """Check the shape of a `checkpointed` frame.

    Raises:
        MessageError: a member is missing or of the wrong type.
    """
    if not isinstance(message.get("id"), str) or not isinstance(message.get("sequence"), int):
        raise MessageError("checkpointed needs an id and a sequence")
    answer = Checkpointed(type="checkpointed", id=message["id"], sequence=message["sequence"])
    if "error" in message:
        answer["error"] = str(message["error"])
    return answer


def _positive(message: dict[str, Any], member: str) -> int | None:
    value = message.get(member)
    if value is not None and (not isinstance(value, int) or value <= 0):
        raise MessageError(f"{member} must be a positive integer")
    return value
