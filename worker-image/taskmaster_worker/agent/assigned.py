"""An assigned Task as the agent reads it off its watch, and the frame that starts it.

Decoding takes only what says whose attempt this is. Anything else is read when the attempt begins, so that a Task with
a word in it that this version does not know ends with a record, instead of staying Assigned for ever.

A Task that is made of a template (`spec.templateRef`) runs what the coordinator found that to be with its first
assignment, `status.resolvedRun`, which holds in place of the words of the same names in its spec.
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
from taskmaster_worker.agent.parents import Results
from taskmaster_worker.agent.sources import Reference, Values, filled, references
from taskmaster_worker.runner.messages import Run, Start, TaskIdentity

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What an attempt runs, as its object says it: values that come from elsewhere are not in it yet."""

    run: Mapping[str, Any]
    env: Sequence[Mapping[str, Any]]
    directory: str
    memory_bytes: int | None


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
    def slots(self) -> int:
        """How many slots of the worker it takes: as the coordinator counted, else as the spec says.

        Raises:
            TypeError, ValueError: it is no number.
        """
        asked = (self.spec.get("resources") or {}).get("slots")
        return int(self.status["assignment"].get("slots") or asked or 1)

    @property
    def is_request(self) -> bool:
        """Whether it is a request that the agent makes itself, rather than a process."""
        return "http" in ((self.status.get("resolvedRun") or self.spec).get("run") or {})

    def work(self) -> Work:
        """Return what is to be run.

        Raises:
            KeyError, TypeError: the Task is not whole.
            ValueError: it is made of a template, and nobody has said of what.
        """
        spec, resolved = self.spec, self.status.get("resolvedRun")
        if resolved is not None:
            return _work(resolved, resolved.get("memoryMiB"))
        if spec.get("templateRef"):
            raise ValueError("spec.templateRef is set, but status.resolvedRun does not say what that comes to")
        return _work(spec, (spec.get("resources") or {}).get("memoryMiB"))

    def parents(self) -> list[str]:
        """Return the names of the Tasks whose results it is given, each once; a request has no use for any.

        Raises:
            KeyError: the spec is not whole.
        """
        named = () if self.is_request else self.spec.get("dependsOn") or ()
        return list(dict.fromkeys(dependency["name"] for dependency in named))

    def references(self) -> list[Reference]:
        """Return which values have to be read before the attempt can start.

        Raises:
            KeyError, TypeError, ValueError: see `work`.
        """
        work = self.work()
        return references(work.run, work.env)

    def start_frame(self, values: Values, results: Results, *, stall_seconds: int | None) -> Start:
        """Return the frame that makes the runner, or the agent itself, start the attempt.

        Raises:
            KeyError, TypeError, ValueError: see `work`.
        """
        work = self.work()
        run = work.run
        if self.is_request and run["http"].get("headers"):
            run = {"http": {**run["http"], "headers": filled(run["http"]["headers"], values)}}
        frame = Start(
            type="start",
            id=self.id,
            task=TaskIdentity(name=self.name, namespace=self.namespace, uid=self.uid, attempt=self.attempt),
            run=cast("Run", run),
        )
        if work.env:
            frame["env"] = {variable["name"]: variable["value"] for variable in filled(work.env, values)}
        if work.directory:
            frame["workingDir"] = work.directory
        if (checkpoint := (self.status.get("checkpoint") or {}).get("data")) is not None:
            frame["checkpoint"] = checkpoint
        if results:
            frame["dependencies"] = dict(results)
        if work.memory_bytes is not None:
            frame["memoryBytes"] = work.memory_bytes
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


def _work(said: Mapping[str, Any], memory: int | None) -> Work:
    run = said["run"]
    if not isinstance(run, Mapping):
        raise TypeError("run is no object")
    return Work(
        run=run,
        env=said.get("env") or (),
        directory=said.get("workingDir") or "",
        memory_bytes=memory * MEBIBYTE if memory else None,
    )
