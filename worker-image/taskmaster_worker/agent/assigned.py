"""An assigned Task as the agent reads it off its watch, and the frame that starts it.

Decoding takes only what says whose attempt this is. Anything else is read when the attempt begins, so that a Task with
a word in it that this version does not know ends with a record, instead of staying Assigned for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from taskmaster.api import decode
from taskmaster.api.times import from_wire
from taskmaster.core.policy import Policy
from taskmaster.core.retry import Spent
from taskmaster.core.task import Holder, Instant
from taskmaster_worker.agent.sources import Reference, Values, filled, references
from taskmaster_worker.runner.messages import Run, Start, TaskIdentity

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Assigned:
    """One attempt of one Task, given to a worker."""

    uid: str
    attempt: int
    namespace: str
    name: str
    holder: Holder
    spec: Mapping[str, Any]
    status: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The fencing token, as the runner knows it."""
        return f"{self.uid}/{self.attempt}"

    @property
    def spent(self) -> Spent:
        """The budgets as they stood before this attempt."""
        return decode.spent(self.status)

    @property
    def past(self) -> Sequence[Mapping[str, Any]]:
        """The records of earlier attempts."""
        return self.status.get("attempts") or ()

    def policy(self) -> Policy:
        """Return the policy that the coordinator resolved.

        Raises:
            KeyError, ValueError: it is not whole, or has a word that this version does not know.
        """
        return decode.assigned_policy(self.status["assignment"])

    def deadline(self) -> Instant | None:
        """Return when `timeouts.totalSeconds` are over; None if there is no such bound.

        Raises:
            ValueError: it is no time.
        """
        text = self.status.get("deadlineTime")
        return from_wire(text) if text else None

    @property
    def is_request(self) -> bool:
        """Whether it is a request that the agent makes itself, rather than a process."""
        return "http" in (self.spec.get("run") or {})

    def references(self) -> list[Reference]:
        """Return what has to be read before the attempt can start.

        Raises:
            KeyError: the spec is not whole.
        """
        return references(self.spec)

    def start_frame(self, values: Values, *, stall_seconds: int | None) -> Start:
        """Return the frame that makes the runner, or the agent itself, start the attempt.

        Raises:
            KeyError: the spec is not whole.
        """
        spec = self.spec
        run = spec["run"]
        if self.is_request and run["http"].get("headers"):
            run = {"http": {**run["http"], "headers": filled(run["http"]["headers"], values)}}
        frame = Start(
            type="start",
            id=self.id,
            task=TaskIdentity(name=self.name, namespace=self.namespace, uid=self.uid, attempt=self.attempt),
            run=cast("Run", run),
        )
        if env := spec.get("env"):
            frame["env"] = {variable["name"]: variable["value"] for variable in filled(env, values)}
        if directory := spec.get("workingDir"):
            frame["workingDir"] = directory
        if (checkpoint := (self.status.get("checkpoint") or {}).get("data")) is not None:
            frame["checkpoint"] = checkpoint
        if memory := (spec.get("resources") or {}).get("memoryMiB"):
            frame["memoryBytes"] = memory * MEBIBYTE
        if stall_seconds is not None:
            frame["stallSeconds"] = stall_seconds
        return frame


def assigned(obj: Mapping[str, Any]) -> Assigned:
    """Decode a Task of the agent's watch.

    Raises:
        KeyError: it is not assigned.
    """
    metadata, status = obj["metadata"], obj["status"]
    assignment = status["assignment"]
    return Assigned(
        uid=metadata["uid"],
        attempt=status["attempt"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        holder=Holder(assignment["worker"], assignment["podUID"], assignment["incarnation"]),
        spec=obj["spec"],
        status=status,
    )
