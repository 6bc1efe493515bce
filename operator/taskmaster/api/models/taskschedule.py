"""The kind TaskSchedule: creates Tasks by cron expressions or at an interval.

Where Kubernetes has a CronJob's word for something, it is the word here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import ATOMIC, Conditions, Count, Model, Name, PositiveSeconds, Seconds, Time
from taskmaster.api.models.task import TaskSpec
from taskmaster.core.cron import MAX_CHARACTERS
from taskmaster.core.schedule import MAX_WAITING, CatchUp, ConcurrencyPolicy

Expression = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
HistoryLimit = Annotated[int, Field(ge=0, le=1_000)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]

LongCount = Annotated[int, Field(ge=0, le=9_007_199_254_740_991)]

ACTIVE_SHOWN = 100
"""How many names of active Tasks are in the status."""


class ScheduledMetadata(Model):
    """What the Tasks get besides the names and labels that the schedule gives them."""

    labels: Annotated[dict[LabelKey, Annotated[str, Field(max_length=63)]], Field(max_length=64)] | None = None
    """Labels of the Tasks."""

    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4_096)]], Field(max_length=64)] | None = None
    """Annotations of the Tasks."""


class ScheduledTask(Model):
    """What the Tasks of a schedule are like."""

    metadata: ScheduledMetadata | None = None
    """Labels and annotations of the Tasks."""

    spec: TaskSpec
    """The spec of the Tasks, as in a Task."""


class TaskScheduleSpec(Model):
    """When to create Tasks, and which. At least one of schedule, schedules and everySeconds says when."""

    schedule: Expression | None = None
    """A cron expression of five fields (minute, hour, day-of-month, month, day-of-week) such as "30 2 * * MON-FRI", or
    one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually. L in day-of-month is its last day, 5L in
    day-of-week the last Friday, MON#2 the second Monday."""

    schedules: Annotated[list[Expression], Field(min_length=1, max_length=32, json_schema_extra=ATOMIC)] | None = None
    """More cron expressions. What occurs by several of them at once occurs once."""

    time_zone: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The time zone of the expressions, a name of the IANA database such as Europe/Berlin. Default UTC. In a repeated
    hour fixed times occur the first time only, in a skipped one at its end; what has * in minute or hour follows the
    clock."""

    every_seconds: PositiveSeconds | None = None
    """Occur each so many seconds, counted from startTime, or from the creation, whatever the clocks of the zone do."""

    start_time: Time | None = None
    """Nothing occurs before this time; everySeconds counts from it."""

    end_time: Time | None = None
    """Nothing occurs after this time."""

    max_runs: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """How many Tasks to create by time; then the schedule is done. Default: no bound."""

    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW
    """What happens at an occurrence while Tasks of the schedule are active: Allow starts another one, Forbid misses the
    occurrence, Replace starts another one and cancels the others, Enqueue lets the occurrence wait until they have
    ended (at most 100 wait). Default Allow."""

    suspend: bool = False
    """Start nothing. What would have occurred meanwhile is not made up for. Active Tasks go on."""

    starting_deadline_seconds: Seconds | None = None
    """How late an occurrence may still be started, in seconds; later it counts as missed. Default: no bound."""

    catch_up: CatchUp = CatchUp.LATEST
    """Which occurrences are started that come to light more than 10 seconds late, because the operator was down: None,
    Latest (one, unless a newer one is on time) or All (the latest catchUpLimit). Default Latest."""

    catch_up_limit: Annotated[int, Field(ge=1, le=MAX_WAITING)] = 10
    """How many late occurrences catchUp: All starts at most. Default 10."""

    jitter_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Start up to so many seconds later, so that schedules do not start all at once. How much is the same each time
    anybody asks about an occurrence, and always less than what is left until the next one. Default 0."""

    successful_tasks_history_limit: HistoryLimit = 3
    """How many succeeded Tasks to keep; the oldest are deleted first. The Tasks' own TTL deletes them, too.
    Default 3."""

    failed_tasks_history_limit: HistoryLimit = 1
    """How many Tasks to keep that have ended otherwise. Default 1."""

    task_template: ScheduledTask
    """What the Tasks are like. A change holds for the Tasks that are created from then on."""


class TaskScheduleStatus(Model):
    """What the schedule has done and will do; written at most once in 5 seconds."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""

    schedule: Annotated[str, Field(max_length=1_024)] | None = None
    """When Tasks are created, in one line."""

    last_schedule_time: Time | None = None
    """The latest occurrence that was started."""

    last_successful_time: Time | None = None
    """When a Task of the schedule last succeeded."""

    next_run_time: Time | None = None
    """When the next Task is going to be created; not set while the schedule is suspended, and when it is done."""

    active: Annotated[list[Name], Field(max_length=ACTIVE_SHOWN, json_schema_extra=ATOMIC)] | None = None
    """The Tasks of the schedule that have not finished, by name; at most 100 of them."""

    active_count: Count | None = None
    """How many Tasks of the schedule have not finished."""

    runs: LongCount | None = None
    """How many Tasks have been created by time."""

    missed: LongCount | None = None
    """How many occurrences were not started: forbidden, too late, or refused. Of a long outage, everySeconds is counted
    in full, and of expressions the latest 1000."""

    waiting: Annotated[list[Time], Field(max_length=MAX_WAITING, json_schema_extra=ATOMIC)] | None = None
    """Occurrences that wait for the active Tasks to end, the oldest first."""

    high_water_time: Time | None = None
    """Everything that occurs up to this time has been dealt with: a clock that is set back starts nothing again."""

    observed_timing: Annotated[str, Field(max_length=64)] | None = None
    """A digest of the fields that say when. With another one the past is settled: only what comes is started."""

    observed_run_now: Annotated[str, Field(max_length=253)] | None = None
    """The value of the annotation taskmaster.dev/run-now that was answered last."""

    conditions: Conditions | None = None
    """Ready: whether Tasks are created when they should be. False with the reason InvalidSchedule when an expression or
    a time cannot be used, and TaskRefused when the API server did not take the Task."""
