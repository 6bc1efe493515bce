"""Every write of the protocol, made as its writer makes it from the Task that it last saw.

`docs/state-machine.md` shows what becomes of each of them in each phase: the table is generated with an in-memory JSON
patch, and tried on a real API server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tests.builders import EPOCH

from taskmaster.api import patches
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import TERMINAL, Phase
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.retry import Again, Finish, Outcome, RetryDecision, Spent
from taskmaster.core.task import Holder, Instant, StopReason, Task
from taskmaster.kube.api import JsonPatch, MergePatch

Patch = JsonPatch | MergePatch
Make = Callable[[Task, Worker], Patch]

NOW = Instant(EPOCH + 100)
STARTED = Instant(EPOCH + 90)
RETRY_REQUEST: Final = "again-1"

DONE = patches.Ended(Outcome.SUCCEEDED, EndReason.COMPLETED, "", NOW, STARTED, "tail", {"answer": 42}, exit_code=0)
FAILED = patches.Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", NOW, STARTED, "tail", exit_code=3)
CANCELLED = patches.Ended(Outcome.CANCELLED, EndReason.CANCELLED, "spec.cancel was set", NOW, STARTED, "tail")
SUSPENDED = patches.Ended(Outcome.SUSPENDED, EndReason.SUSPENDED, "spec.suspend was set", NOW, STARTED, "tail")
LOST = patches.Ended(Outcome.WORKER_LOST, EndReason.WORKER_LOST, "the pod is gone", NOW)


@dataclass(frozen=True, slots=True)
class Event:
    """One write, for one cause."""

    write: str
    """The function of `api.patches`."""
    seen: tuple[Phase, ...]
    """The phases that its writer decides on; what follows is the same for all of them."""
    make: Make
    cause: str = ""
    by_worker: bool = False

    @property
    def label(self) -> str:
        return f"`{self.write}` ({self.cause})" if self.cause else f"`{self.write}`"

    @property
    def where(self) -> str:
        return "any phase" if len(self.seen) == len(Phase) else " or ".join(self.seen)


def last_seen(met: Task, phase: Phase, worker: Worker) -> Task:
    """Return the Task as a writer knows it who believes that it is in `phase`; he is right, or he is late."""
    if phase is Phase.PENDING:
        attempt = met.attempt if met.holder is None else met.attempt - 1
        holder = None
    else:
        attempt, holder = max(met.attempt, 1), holder_of(worker)
    return replace(
        met,
        phase=phase,
        attempt=attempt,
        holder=holder,
        resource_version=met.resource_version if phase is met.phase else "1",
        retry_request=RETRY_REQUEST if phase in TERMINAL else met.retry_request,
    )


def holder_of(worker: Worker) -> Holder:
    return Holder(worker.name, worker.pod_uid, worker.incarnation)


def _finish(ended: patches.Ended, phase: Phase, spent: Spent | None = None, *, dead_lettered: bool = False) -> Make:
    def make(seen: Task, worker: Worker) -> Patch:
        decision = Finish(phase, ended.reason, spent or seen.spent, dead_lettered)
        return JsonPatch(
            patches.finish(seen.uid, seen.attempt, holder_of(worker), ended, decision, seen.attempts, seen.spent)
        )

    return make


def _again(ended: patches.Ended, delay: float, spent: Spent | None = None) -> Make:
    def make(seen: Task, worker: Worker) -> Patch:
        decision = Again(delay, spent or seen.spent)
        return JsonPatch(
            patches.again(seen.uid, seen.attempt, holder_of(worker), ended, decision, seen.attempts, seen.spent)
        )

    return make


def _requeue(decision: RetryDecision) -> Make:
    return lambda seen, _: JsonPatch(patches.requeue(seen, LOST, decision))


def _end_waiting(phase: Phase, reason: EndReason, message: str, *, dead_lettered: bool = False) -> Make:
    return lambda seen, _: JsonPatch(
        patches.end_waiting(seen, phase, reason, message, now=NOW, dead_lettered=dead_lettered)
    )


def _start(seen: Task, worker: Worker) -> Patch:
    return JsonPatch(patches.start(seen.uid, seen.attempt, holder_of(worker), started=STARTED))


def _save(seen: Task, worker: Worker) -> Patch:
    checkpoint = {"attempt": seen.attempt, "time": "2027-01-15T08:01:40Z", "data": {"step": 3}}
    saved = patches.Saved({"current": 3, "total": 9}, checkpoint)
    return JsonPatch(patches.save(seen.uid, seen.attempt, holder_of(worker), saved))


_PENDING, _ASSIGNED, _RUNNING = (Phase.PENDING,), (Phase.ASSIGNED,), (Phase.RUNNING,)
_HELD = (Phase.ASSIGNED, Phase.RUNNING)
_NEXT = _requeue(Again(0.0, Spent(worker_losses=1)))
_CANCEL = _requeue(Finish(Phase.CANCELLED, EndReason.CANCELLED, Spent()))
_GIVE_UP = _requeue(Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(worker_losses=1), dead_lettered=True))

EVENTS: Final = (
    Event("assign", _PENDING, lambda seen, worker: JsonPatch(patches.assign(seen, worker, now=NOW))),
    Event("start", _ASSIGNED, _start, by_worker=True),
    Event("save", _RUNNING, _save, by_worker=True),
    Event("finish", _HELD, _finish(DONE, Phase.SUCCEEDED), "success", by_worker=True),
    Event(
        "finish",
        _HELD,
        _finish(FAILED, Phase.FAILED, Spent(failures=1), dead_lettered=True),
        "failure",
        by_worker=True,
    ),
    Event("finish", _HELD, _finish(CANCELLED, Phase.CANCELLED), "cancel", by_worker=True),
    Event("again", _HELD, _again(FAILED, 2.0, Spent(failures=1)), "failure", by_worker=True),
    Event("again", _HELD, _again(SUSPENDED, 0.0), "suspend", by_worker=True),
    Event("requeue", _ASSIGNED, _NEXT, "next attempt"),
    Event("requeue", _RUNNING, _NEXT, "next attempt"),
    Event("requeue", _ASSIGNED, _GIVE_UP, "budget is out"),
    Event("requeue", _RUNNING, _GIVE_UP, "budget is out"),
    Event("requeue", _ASSIGNED, _CANCEL, "cancel"),
    Event("requeue", _RUNNING, _CANCEL, "cancel"),
    *(
        Event(
            "request_stop",
            (phase,),
            lambda seen, _: JsonPatch(patches.request_stop(seen, StopReason.DRAINED, now=NOW)),
        )
        for phase in _HELD
    ),
    Event("end_waiting", _PENDING, _end_waiting(Phase.CANCELLED, EndReason.CANCELLED, "spec.cancel was set"), "cancel"),
    Event("end_waiting", _PENDING, _end_waiting(Phase.SKIPPED, EndReason.EXPIRED, "it waited too long"), "expiry"),
    Event(
        "end_waiting",
        _PENDING,
        _end_waiting(Phase.FAILED, EndReason.TIMED_OUT, "no time is left", dead_lettered=True),
        "out of time",
    ),
    Event("hold", _PENDING, lambda seen, _: JsonPatch(patches.hold(seen, now=NOW))),
    Event("resume", _PENDING, lambda seen, _: JsonPatch(patches.resume(seen, now=NOW))),
    *(
        Event("run_again", (phase,), lambda seen, _: MergePatch(patches.run_again(seen, now=NOW)))
        for phase in Phase
        if phase in TERMINAL
    ),
    Event(
        "explain",
        _PENDING,
        lambda seen, _: JsonPatch(patches.explain(seen, PendingReason.NO_FREE_SLOT, "all slots are taken", now=NOW)),
    ),
    Event("observe_generation", tuple(Phase), lambda seen, _: JsonPatch(patches.observe_generation(seen))),
)
