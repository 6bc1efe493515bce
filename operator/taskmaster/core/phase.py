"""The phases of a Task and the moves between them.

`SUCCESSORS` is the one table of legal moves: the CEL rule of the CRD is generated from it and `check_move` enforces it
in our own code, so that the API server and the scheduler cannot disagree.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a Task stands. Modelled on the phases of a Pod, with the waiting and placing of a work queue added."""

    PENDING = "Pending"
    """Waiting: new, between two attempts, or taken back from a lost worker. `status.reason` says for what it waits."""

    ASSIGNED = "Assigned"
    """The coordinator has chosen a worker and recorded it in `status.assignment`; the worker has not yet reported that
    the attempt has been running for a second. A short Task goes from here straight to its end."""

    RUNNING = "Running"
    """The worker has reported that the attempt runs. `status.startTime` says since when."""

    SUCCEEDED = "Succeeded"
    """Ended well: exit code 0, or a Python callable that returned. Final."""

    FAILED = "Failed"
    """Ended badly: the last attempt failed and no retry is left. `status.reason` says why. Final."""

    CANCELLED = "Cancelled"
    """Ended because somebody set `spec.cancel`, before its first attempt or during one. Final."""

    SKIPPED = "Skipped"
    """Ended before an attempt, because none makes sense any more: it expired (`timeouts.pendingSeconds`), a Task that
    it depends on ended in another way than asked for, or there was no room and somebody said to reject it. Final."""


TERMINAL: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED})
"""Final phases: the API server freezes the record. Only a new `spec.retryRequest` leads out of them, to a new run."""

ASSIGNED_PHASES: Final = frozenset({Phase.ASSIGNED, Phase.RUNNING})
"""Phases in which `status.assignment` names the worker that holds the Task, and a slot of it is taken."""

SUCCESSORS: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.PENDING: frozenset({Phase.PENDING, Phase.ASSIGNED, Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED}),
    Phase.ASSIGNED: frozenset(
        {Phase.ASSIGNED, Phase.RUNNING, Phase.PENDING, Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}
    ),
    Phase.RUNNING: frozenset({Phase.RUNNING, Phase.PENDING, Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}),
    **{phase: frozenset({phase, Phase.PENDING}) for phase in Phase if phase in TERMINAL},
}
"""The phases that one write may lead to, from each phase (staying included)."""


class IllegalMove(ValueError):
    """A transition that the state machine does not know: a bug in the caller, never a user's mistake."""


def check_move(old: Phase, new: Phase) -> None:
    """Raise IllegalMove unless one write may lead from `old` to `new`."""
    if new not in SUCCESSORS[old]:
        raise IllegalMove(f"a Task cannot go from {old} to {new}")
