"""An assigned Task as the agent reads it off its watch, and the frame that starts it.

Decoding takes only what says whose attempt this is. Anything else is read when the attempt begins, so that a Task with
a word in it that this version does not know ends with a record, instead of staying Assigned for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from taskmaster.api import decode
from taskmaster.core.policy import Policy
from taskmaster.core.retry import Spent
from taskmaster.core.task import Holder
from taskmaster_worker.runner.messages import Run, Start, TaskIdentity


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
        status = self.status
        return Spent(status.get("failures", 0), status.get("workerLosses", 0), status.get("interruptions", 0))

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

    def start_frame(self) -> Start:
        """Return the frame that makes the runner start the attempt.

        Raises:
            KeyError: the spec is not whole.
        """
        spec = self.spec
        frame = Start(
            type="start",
            id=self.id,
            task=TaskIdentity(name=self.name, namespace=self.namespace, uid=self.uid, attempt=self.attempt),
            run=cast("Run", spec["run"]),
        )
        if env := spec.get("env"):
            frame["env"] = {variable["name"]: variable.get("value") or "" for variable in env}
        if directory := spec.get("workingDir"):
            frame["workingDir"] = directory
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
