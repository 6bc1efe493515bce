"""Why a Task waits, in one typed word and a sentence that says what to do.

The word is the most fundamental one that holds (the order of `PendingReason`): whoever removes that obstacle may meet
the next one, but never had to look at it before.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from taskmaster.core.capacity import Shape, Survey
from taskmaster.core.dependencies import describe
from taskmaster.core.reason import NEEDS_A_PERSON, PendingReason
from taskmaster.core.station import Entry, Place, Station
from taskmaster.core.task import Instant
from taskmaster.core.tenant import Tenant

ABOVE_THE_QUEUE: Final = NEEDS_A_PERSON | {PendingReason.SUSPENDED}
"""Words that are more fundamental than what the Task's queue has to say."""


class Surveys:
    """What keeps shapes from workers at one moment: each is looked at once, however many Tasks have it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, Shape], Survey] = {}

    def of(self, tenant: Tenant, shape: Shape) -> Survey:
        """Return why no worker takes a Task of a shape."""
        key = (id(tenant), shape)
        if key not in self._known:
            self._known[key] = tenant.capacity.survey(shape)
        return self._known[key]


def reason_of(
    tenant: Tenant, queue: str, station: Station, shape: Shape | None, surveys: Surveys, *, now: Instant
) -> str:
    """Return the word for Tasks at a station; empty if they do not wait.

    Args:
        tenant: Their namespace.
        queue: Their queue.
        station: Where they stand.
        shape: What those that are ready ask of a worker.
        surveys: What is known about workers.
        now: The time of day.
    """
    if station in (Place.HELD, Place.ENDING, Place.ANSWERING) or station in ABOVE_THE_QUEUE:
        return station.value if isinstance(station, PendingReason) else ""
    gate = _gate(tenant, queue, now=now)
    if gate is PendingReason.QUEUE_PAUSED:
        return gate.value
    if isinstance(station, PendingReason):
        return station.value
    if gate is not None:
        return gate.value
    fits = shape is None or surveys.of(tenant, shape).fitting > 0
    return PendingReason.NO_FREE_SLOT.value if fits else PendingReason.NO_MATCHING_WORKER.value


def explain(tenant: Tenant, entry: Entry, surveys: Surveys, *, now: Instant) -> PendingReason | None:
    """Return the word for why a Task waits; None if it does not, or has been answered otherwise."""
    word = reason_of(tenant, entry.task.queue, entry.station, entry.shape, surveys, now=now)
    return PendingReason(word) if word and word != PendingReason.SUSPENDED else None


def pending(tenant: Tenant, *, now: Instant) -> Counter[tuple[str, str]]:
    """Count the Tasks that wait, by queue and reason; O(stations + shapes * workers)."""
    surveys = Surveys()
    counts: Counter[tuple[str, str]] = Counter()
    for (queue, station), number in tenant.counts.items():
        if station is Place.READY:
            for shape, waiting in tenant.queues[queue].backlog.shapes():
                counts[queue, reason_of(tenant, queue, station, shape, surveys, now=now)] += waiting
        elif word := reason_of(tenant, queue, station, None, surveys, now=now):
            counts[queue, word] += number
    return +counts


def _gate(tenant: Tenant, queue: str, *, now: Instant) -> PendingReason | None:
    """Return why a queue starts nothing at the moment."""
    state = tenant.queues.get(queue)
    if state is None:
        return PendingReason.QUEUE_NOT_FOUND
    if state.queue.closed:
        return PendingReason.QUEUE_PAUSED
    if state.bucket is not None and state.bucket.wait(now=now):
        return PendingReason.RATE_LIMITED
    limit = state.queue.max_running
    return PendingReason.QUEUE_LIMIT if limit is not None and tenant.running(queue) >= limit else None


def message(tenant: Tenant, entry: Entry, reason: PendingReason, surveys: Surveys) -> str:
    """Return what to tell people about a reason that `explain` has found."""
    task = entry.task
    state = tenant.queues.get(task.queue)
    queue = state.queue if state is not None else None
    match reason:
        case PendingReason.QUEUE_NOT_FOUND:
            return (
                f'there is no queue "{task.queue}": create a TaskQueue of this name in namespace {task.namespace}, or '
                'use the queue "default", which always exists'
            )
        case PendingReason.TEMPLATE_NOT_FOUND:
            return (
                f'there is no template "{task.template}": create a TaskTemplate of this name in namespace '
                f"{task.namespace}"
            )
        case PendingReason.INVALID_SPEC:
            return tenant.arguments_problem(task)
        case PendingReason.DEPENDENCY_CYCLE | PendingReason.WAITING_FOR_DEPENDENCY:
            return describe(tenant.dependencies.judge(task.uid))
        case PendingReason.QUEUE_PAUSED if queue is not None:
            field, what = ("drain", "is being drained") if queue.drain else ("paused", "is paused")
            return f"queue {task.queue} {what}: it starts Tasks again when its spec.{field} is false"
        case PendingReason.WAITING_FOR_START_TIME:
            return "not to be started before spec.notBeforeTime"
        case PendingReason.CONCURRENCY_LIMIT:
            key, holders, limit = tenant.keys.standing(task.uid)
            return f'{holders} of {limit} Tasks that may run at a time with the concurrency key "{key}" run'
        case PendingReason.RATE_LIMITED if state is not None and state.bucket is not None and queue is not None:
            pace = _pace(state.bucket.limit.rate)
            return f"queue {task.queue} starts {pace} on average (rateLimit), and {len(state.backlog)} are ready"
        case PendingReason.QUEUE_LIMIT if queue is not None:
            if entry.station is PendingReason.QUEUE_LIMIT:
                return f"queue {task.queue} is full for this one: maxPending is {queue.max_pending}"
            return f"queue {task.queue} runs {tenant.running(task.queue)} of {queue.max_running} Tasks (maxRunning)"
        case PendingReason.NO_MATCHING_WORKER:
            survey = surveys.of(tenant, entry.shape)
            if not survey.workers:
                return (
                    f"no worker is ready in namespace {task.namespace}: create a WorkerPool there, or see "
                    f"`kubectl get workerpools -n {task.namespace} -o wide` for what keeps it from being ready"
                )
            return f"{survey}; see `kubectl get workerpools -n {task.namespace} -o wide`"
        case PendingReason.NO_FREE_SLOT:
            return _no_slot(entry, surveys.of(tenant, entry.shape))
        case _:
            return "the last attempt failed; the next one starts after status.notBeforeTime"


def _no_slot(entry: Entry, survey: Survey) -> str:
    if entry.shape.alone:
        return (
            f"the runner container died under this Task {entry.task.spent.runner_deaths} times in a row: it waits "
            f"until one of the workers holds no other Task ({survey})"
        )
    return f"{survey}; Tasks that come first have the slots: scale a WorkerPool up to run more at a time"


def _pace(rate: float) -> str:
    return f"{rate:g} Tasks per second" if rate >= 1 else f"one Task per {round(1 / rate, 1):g} s"
