"""Why an attempt is stopped: what its Task asks for, by spec or by the coordinator, and what the worker itself decides.

Pure. Of several stops the first says why, except that a cancel overrides what would only give the Task back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import StopReason
from taskmaster_worker.agent.assigned import Assigned

_GIVEN_BACK = (Outcome.SUSPENDED, Outcome.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Stop:
    """How an attempt ends that is stopped, or refused before it has begun."""

    outcome: Outcome
    reason: EndReason
    message: str

    def overrides(self, earlier: Stop | None) -> bool:
        """Whether this says why, although an earlier one has already been sent."""
        return earlier is None or (self.outcome is Outcome.CANCELLED and earlier.outcome in _GIVEN_BACK)


CANCEL: Final = Stop(Outcome.CANCELLED, EndReason.CANCELLED, "spec.cancel was set")
SUSPEND: Final = Stop(Outcome.SUSPENDED, EndReason.SUSPENDED, "spec.suspend was set")
DRAIN: Final = Stop(Outcome.INTERRUPTED, EndReason.INTERRUPTED, "the worker was drained")

FULL: Final = Stop(Outcome.RELEASED, EndReason.INTERRUPTED, "the worker was full")
LEAVING: Final = Stop(Outcome.RELEASED, EndReason.INTERRUPTED, DRAIN.message)
RUNNER_AWAY: Final = Stop(Outcome.RELEASED, EndReason.INTERRUPTED, "the worker's runner was not ready")

REQUESTED: Final[Mapping[str, Stop]] = {
    StopReason.CANCELLED: Stop(Outcome.CANCELLED, EndReason.REPLACED, "another Task took its place"),
    StopReason.DRAINED: Stop(Outcome.INTERRUPTED, EndReason.INTERRUPTED, "its queue is being emptied"),
    StopReason.TIMED_OUT: Stop(
        Outcome.FAILED, EndReason.TIMED_OUT, "the coordinator found that it runs for longer than it may"
    ),
}
"""What follows from `status.stopRequest`."""


def asked(task: Assigned) -> Stop | None:
    """Return what the Task asks for, a cancel first; a request that this version does not know asks for nothing."""
    requested = REQUESTED.get((task.status.get("stopRequest") or {}).get("reason", ""))
    if task.spec.get("cancel"):
        return CANCEL
    if requested is not None and requested.outcome is Outcome.CANCELLED:
        return requested
    return SUSPEND if task.spec.get("suspend") else requested


def too_many_slots(wanted: int, there: int) -> Stop:
    """The attempt takes more slots than the worker has, even if nothing else ran there."""
    message = f"it takes {wanted} slots, and the worker has {there}"
    return Stop(Outcome.RELEASED, EndReason.INTERRUPTED, message)


def out_of_attempt_time(seconds: int) -> Stop:
    """The attempt has used up its own time."""
    message = f"ran longer than timeouts.attemptSeconds = {seconds} s"
    return Stop(Outcome.FAILED, EndReason.TIMED_OUT, message)


def out_of_total_time(seconds: int | None) -> Stop:
    """The run of the Task has used up its time."""
    message = f"took longer than timeouts.totalSeconds = {seconds} s, earlier attempts and waits included"
    return Stop(Outcome.FAILED, EndReason.TIMED_OUT, message)


def stalled(seconds: int | None) -> Stop:
    """The attempt has shown no sign of life."""
    message = f"no output, progress or checkpoint for timeouts.stallSeconds = {seconds} s"
    return Stop(Outcome.FAILED, EndReason.STALLED, message)
