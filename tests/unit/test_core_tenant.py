"""Where each Task stands, and what moves it: one test per way in and out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from tests.builders import EPOCH, worker
from tests.unit.tenant_rig import Site, after, ended, given_back, held, key, pending

from taskmaster.core.assignment import Ending
from taskmaster.core.capacity import Shape
from taskmaster.core.explanation import pending as waiting
from taskmaster.core.phase import Phase
from taskmaster.core.policy import BUILT_IN, Overrides
from taskmaster.core.queue import Queue, RateLimit, WhenFull
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.requirements import Operator, Requirement
from taskmaster.core.station import Place, Station
from taskmaster.core.task import DependencyCondition, Instant, OnConflict, StopReason, Task
from taskmaster.core.template import Template
from taskmaster.core.tenant import Tenant

READY, HELD, ENDING, ANSWERING = Place.READY, Place.HELD, Place.ENDING, Place.ANSWERING
PARKED, OUTSIDE = PendingReason.CONCURRENCY_LIMIT, PendingReason.QUEUE_LIMIT
GPU = (Requirement("gpu", Operator.EXISTS),)
LATER = EPOCH + 100


# Queues


def test_a_task_waits_for_its_queue_and_again_when_that_is_gone() -> None:
    site = Site(a=4)
    site.put(pending("t", queue="q"))
    assert (site.station("t"), site.cycle()) == (PendingReason.QUEUE_NOT_FOUND, [])
    site.queue("q")
    assert site.station("t") is READY
    site.tenant.remove_queue("q", now=site.now)
    assert (site.station("t"), site.cycle()) == (PendingReason.QUEUE_NOT_FOUND, [])
    site.queue("q")
    assert site.cycle() == ["t"]


def test_what_runs_goes_on_without_its_queue() -> None:
    site = Site(Queue("q"), a=1)
    site.put(pending("t", queue="q"))
    site.cycle()
    site.tenant.remove_queue("q", now=site.now)
    assert site.station("t") is HELD
    site.put(given_back(site.task("t")))
    assert site.station("t") is PendingReason.QUEUE_NOT_FOUND
    site.end("t")
    site.assert_nothing_is_left()


def test_the_default_queue_is_always_there_and_forgets_what_it_was_told() -> None:
    site = Site(Queue("default", paused=True), a=1)
    site.put(pending("t"))
    assert site.cycle() == []
    site.tenant.remove_queue("default", now=site.now)
    assert site.cycle() == ["t"]


@pytest.mark.parametrize("closed", ["paused", "drain"])
def test_a_closed_queue_starts_nothing_until_it_is_opened(closed: str) -> None:
    site = Site(a=2)
    site.put(pending("t"))
    site.queue("default", **{closed: True})
    assert (site.cycle(), site.word("t")) == ([], PendingReason.QUEUE_PAUSED)
    site.queue("default")
    assert site.cycle() == ["t"]


def test_pausing_lets_go_on_what_runs() -> None:
    site = Site(a=1)
    site.put(pending("t"))
    site.cycle()
    site.queue("default", paused=True)
    assert (site.verdicts(), site.running()) == ([], ["t"])


@pytest.mark.parametrize("order", ["queue last", "queue first"])
def test_a_drained_queue_asks_for_what_runs_also_after_a_restart(order: str) -> None:
    site, tasks = Site(a=2), [held(pending("t"), "a"), held(pending("other", queue="o"), "a")]
    if order == "queue last":
        site.put(*tasks)
    site.queue("o")
    site.queue("default", drain=True)
    if order == "queue first":
        site.put(*tasks)
    assert site.verdicts() == [("t", "Stop(Drained)")]
    site.put(replace(site.task("t"), stop_requested=True))
    site.queue("default", drain=True, weight=2)
    assert site.verdicts() == [], "it has been asked"
    site.put(given_back(site.task("t")))
    assert (site.station("t"), site.cycle()) == (READY, [])


def test_a_drain_finds_a_task_on_its_way_to_a_worker() -> None:
    site = Site(a=1)
    site.put(pending("t"))
    [decision] = site.decide()
    site.queue("default", drain=True)
    assert site.verdicts() == []
    site.put(held(decision.task, "a"))
    assert site.verdicts() == [("t", "Stop(Drained)")]


def test_a_stop_that_could_not_be_written_follows_again() -> None:
    site = Site(Queue("default", drain=True), a=1)
    site.put(held(pending("t"), "a"))
    assert site.verdicts() == [("t", "Stop(Drained)")]
    site.tenant.reconsider("uid-of-t", now=site.now)
    assert site.verdicts() == [("t", "Stop(Drained)")]
    site.queue("default")
    site.tenant.reconsider("uid-of-t", now=site.now)
    site.tenant.reconsider("uid-of-nobody", now=site.now)
    assert site.verdicts() == []


def test_max_running_bounds_what_runs_and_may_be_edited() -> None:
    site = Site(Queue("default", max_running=2), a=9)
    site.put(*(pending(f"t{number}") for number in range(6)))
    assert (site.cycle(), site.cycle(), site.word("t5")) == (["t0", "t1"], [], OUTSIDE)
    site.end("t0")
    assert site.cycle() == ["t2"]
    site.queue("default", max_running=3)
    assert site.cycle() == ["t3"]
    site.queue("default", max_running=1)
    site.end("t1", "t2")
    assert site.cycle() == []
    site.end("t3")
    assert site.cycle() == ["t4"]


def test_a_rate_limit_spreads_starts_and_says_when_to_come_back() -> None:
    site = Site(Queue("default", rate_limit=RateLimit(0.5, 2)), a=9)
    site.put(*(pending(f"t{number}") for number in range(5)))
    assert (site.cycle(), site.cycle(), site.word("t4")) == (["t0", "t1"], [], PendingReason.RATE_LIMITED)
    assert site.scheduling.next_due(now=site.now) == site.now + 2
    site.passes(2)
    assert site.cycle() == ["t2"]
    site.queue("default")
    assert (site.cycle(), site.scheduling.next_due(now=site.now)) == (["t3", "t4"], None)


@pytest.mark.parametrize(
    ("rate", "pace"), [(2.5, "2.5 Tasks per second"), (1.0, "1 Tasks per second"), (1 / 600, "one Task per 600 s")]
)
def test_a_rate_is_said_in_numbers_that_people_can_read(rate: float, pace: str) -> None:
    site = Site(Queue("default", rate_limit=RateLimit(rate, 1)), a=9)
    site.put(*(pending(f"t{number}") for number in range(3)))
    site.cycle()
    assert site.says("t1") == f"queue default starts {pace} on average (rateLimit), and 2 are ready"


def test_tasks_wait_outside_of_a_full_queue_in_the_order_of_creation() -> None:
    site = Site(Queue("default", max_pending=2), a=1)
    site.put(*(pending(name, created=EPOCH + after) for name, after in (("a", 5), ("b", 6), ("d", 3), ("c", 2))))
    assert site.stations("abcd") == [READY, READY, OUTSIDE, OUTSIDE]
    assert "maxPending is 2" in site.says("c")
    assert site.cycle() == ["a"]
    assert site.stations("bcd") == [READY, READY, OUTSIDE]
    site.remove(site.task("b"))
    assert site.station("d") is READY


@pytest.mark.parametrize("change", ["raise", "lift", "late queue"])
def test_when_more_may_enter_the_oldest_do(change: str) -> None:
    site = Site()
    if change != "late queue":
        site.queue("q", max_pending=0)
    site.put(*(pending(f"t{age}", queue="q", created=EPOCH + age) for age in (3, 1, 2)))
    site.queue("q", max_pending=None if change == "lift" else 2)
    expected = [READY, READY, READY if change == "lift" else OUTSIDE]
    assert site.stations(["t1", "t2", "t3"]) == expected


def test_a_retry_enters_a_full_queue() -> None:
    site = Site(Queue("default", max_pending=1), a=1)
    site.put(pending("running"))
    site.cycle()
    site.put(pending("inside"), pending("outside"))
    site.put(given_back(site.task("running")))
    assert site.stations(["running", "inside", "outside"]) == [READY, READY, OUTSIDE]


def test_all_enter_a_queue_with_room_for_few_as_fast_as_they_can_start() -> None:
    site = Site(Queue("default", max_pending=1), a=9)
    site.put(*(pending(f"t{number}") for number in range(9)))
    assert len(site.cycle()) == 9


def test_a_queue_that_rejects_ends_what_is_new_and_finds_it_full() -> None:
    site = Site(Queue("default", max_pending=1, when_full=WhenFull.REJECT))
    site.put(pending("first"), fresh=True)
    site.put(pending("known before"))
    site.put(pending("new"), fresh=True)
    assert site.stations(["first", "known before", "new"]) == [READY, OUTSIDE, ENDING]
    assert site.verdicts() == [("new", "Skipped(Rejected)")]
    site.put(replace(pending("new"), resource_version="2"))
    assert site.verdicts() == [("new", "Skipped(Rejected)")], "it could not be written"
    site.put(ended(pending("new"), Phase.SKIPPED))
    site.remove(site.task("first"))
    site.put(pending("newer"), fresh=True)
    assert site.stations(["known before", "newer"]) == [READY, ENDING]


@pytest.mark.parametrize(
    "fields", [{"suspend": True}, {"queue": "missing"}, {"attempt": 1}], ids=["suspended", "no queue", "retry"]
)
def test_what_does_not_arrive_is_not_rejected(fields: Any) -> None:
    site = Site(Queue("default", max_pending=0, when_full=WhenFull.REJECT))
    site.put(pending("t", **fields), fresh=True)
    assert site.verdicts() == []


def test_a_task_may_move_to_another_queue_while_it_waits() -> None:
    site = Site(Queue("a", max_pending=1), Queue("b"), w=0)
    site.put(pending("t", queue="a"), pending("next", queue="a"))
    site.put(replace(site.task("t"), queue="b"))
    assert site.stations(["t", "next"]) == [READY, READY]
    assert {queue: len(state.backlog) for queue, state in site.tenant.queues.items()} == {"a": 1, "b": 1, "default": 0}
    site.put(replace(site.task("t"), queue="missing"))
    assert site.station("t") is PendingReason.QUEUE_NOT_FOUND
    site.put(replace(site.task("t"), queue="a"))
    assert site.station("t") is OUTSIDE


def test_numbers_of_waiting_tasks_survive_the_deletion_of_their_queue() -> None:
    site = Site(Queue("q"))
    site.put(pending("t", queue="q"))
    site.tenant.remove_queue("q", now=site.now)
    assert waiting(site.tenant, now=site.now) == {("q", "QueueNotFound"): 1}
    site.remove(site.task("t"))
    assert waiting(site.tenant, now=site.now) == {}


# Templates


def test_a_task_waits_for_its_template_and_again_when_that_is_gone() -> None:
    site = Site(a=1)
    site.put(pending("t", template="tpl"))
    assert site.station("t") is PendingReason.TEMPLATE_NOT_FOUND
    site.tenant.put_template(Template("tpl", problem="cannot be parsed"), now=site.now)
    assert site.station("t") is PendingReason.INVALID_SPEC
    assert site.says("t") == "the TaskTemplate tpl cannot be used: cannot be parsed"
    site.tenant.put_template(Template("tpl"), now=site.now)
    assert site.station("t") is READY
    site.tenant.remove_template("tpl", now=site.now)
    assert (site.station("t"), site.cycle()) == (PendingReason.TEMPLATE_NOT_FOUND, [])


def test_arguments_are_judged_against_the_template_of_the_moment() -> None:
    def problem(task: Task, template: Template) -> str:
        return "" if (task.args or {}).keys() == template.spec.keys() else "wrong arguments"

    site = Site(tenant=Tenant(problem))
    site.tenant.put_template(Template("tpl", spec={"x": 1}), now=site.now)
    site.put(pending("t", template="tpl", args={"x": 1}), pending("u", template="tpl", args={"y": 1}))
    assert site.stations("tu") == [READY, PendingReason.INVALID_SPEC]
    assert site.says("u") == "wrong arguments"
    site.tenant.put_template(Template("tpl", spec={"y": 1}), now=site.now)
    assert site.stations("tu") == [PendingReason.INVALID_SPEC, READY]
    site.put(pending("t", template="tpl", args={"y": 2}))
    assert site.station("t") is READY


def test_a_resolved_task_needs_its_template_no_longer() -> None:
    site = Site()
    site.put(pending("t", template="tpl", resolved=True, attempt=1))
    assert site.station("t") is READY


def test_task_then_template_then_queue_then_built_in_say_what_a_task_is_allowed() -> None:
    site = Site(Queue("default", overrides=Overrides(limit=1, total_seconds=1, stall_seconds=1)))
    template = Template("tpl", Overrides(limit=2, total_seconds=2), slots=3, requires=GPU, ttl_seconds=7)
    site.tenant.put_template(template, now=site.now)
    plain = pending("t", overrides=Overrides(limit=3))
    policy = site.tenant.effective(plain).policy
    assert (policy.retry.limit, policy.timeouts.total_seconds, policy.retry.worker_loss_limit) == (3, 1, 5)
    full = site.tenant.effective(replace(plain, template="tpl"))
    assert (full.policy.retry.limit, full.policy.timeouts.total_seconds, full.policy.timeouts.stall_seconds) == (
        3,
        2,
        1,
    )
    assert (full.slots, full.requires, full.ttl_seconds) == (3, GPU, 7)
    own = Requirement("zone", Operator.EXISTS)
    said = site.tenant.effective(replace(plain, template="tpl", slots=1, requires=(own,), ttl_seconds=0))
    assert (said.slots, said.requires, said.ttl_seconds) == (1, (own,), 0)
    assert site.tenant.effective(replace(plain, template="gone")).policy == policy
    assert site.tenant.effective(pending("t", queue="gone")).policy == BUILT_IN
    running = held(replace(plain, template="tpl"))
    assert site.tenant.effective(running) is running, "what was pinned holds"


# Dependencies


@pytest.mark.parametrize(
    ("condition", "phase", "station"),
    [
        (DependencyCondition.SUCCEEDED, Phase.SUCCEEDED, READY),
        (DependencyCondition.SUCCEEDED, Phase.FAILED, ENDING),
        (DependencyCondition.FAILED, Phase.FAILED, READY),
        (DependencyCondition.FAILED, Phase.CANCELLED, ENDING),
        (DependencyCondition.FINISHED, Phase.SKIPPED, READY),
    ],
)
def test_a_child_starts_or_ends_as_its_parent_has_ended(
    condition: DependencyCondition, phase: Phase, station: Station
) -> None:
    site = Site()
    site.put(pending("child", depends_on=after("parent", condition=condition)))
    assert site.station("child") is PendingReason.WAITING_FOR_DEPENDENCY
    site.put(pending("parent"))
    assert site.station("child") is PendingReason.WAITING_FOR_DEPENDENCY
    site.put(ended(pending("parent"), phase))
    assert site.station("child") is station
    assert site.verdicts() == ([("child", "Skipped(DependencyFailed)")] if station is ENDING else [])


def test_a_failure_ends_all_that_follows_one_after_the_other() -> None:
    site = Site()
    site.put(pending("c", depends_on=after("b")), pending("b", depends_on=after("a")), pending("a"))
    site.put(ended(site.task("a"), Phase.FAILED))
    for name in "bc":
        assert site.verdicts() == [(name, "Skipped(DependencyFailed)")]
        site.put(ended(site.task(name), Phase.SKIPPED, reason="DependencyFailed"))
    site.assert_nothing_is_left()


def test_a_cycle_is_named_and_ends_when_one_of_it_is_gone() -> None:
    site = Site()
    site.put(pending("a", depends_on=after("b")), pending("b", depends_on=after("a")))
    assert site.stations("ab") == [PendingReason.DEPENDENCY_CYCLE] * 2
    assert "a -> b -> a" in site.says("a")
    site.remove(site.task("b"))
    assert site.station("a") is PendingReason.WAITING_FOR_DEPENDENCY


def test_a_parent_that_runs_again_is_waited_for_again() -> None:
    site = Site()
    site.put(pending("parent"), pending("child", depends_on=after("parent")))
    site.put(ended(site.task("parent")))
    assert site.station("child") is READY
    site.put(pending("parent", run_number=2, attempt=1))
    assert site.station("child") is PendingReason.WAITING_FOR_DEPENDENCY


# Time


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"start_after": Instant(LATER)}, PendingReason.WAITING_FOR_START_TIME),
        ({"not_before": Instant(LATER), "attempt": 1}, PendingReason.BACKING_OFF),
    ],
)
def test_a_task_starts_when_its_time_has_come_and_not_before(fields: Any, word: PendingReason) -> None:
    site = Site(a=1)
    site.put(pending("t", **fields))
    assert (site.station("t"), site.word("t"), site.tenant.next_due()) == (word, word, LATER)
    site.passes(99.9)
    assert site.cycle() == []
    site.passes(0.1)
    assert (site.cycle(), site.tenant.next_due()) == (["t"], None)


def test_the_later_of_start_time_and_backoff_counts() -> None:
    site = Site(a=1)
    site.put(pending("t", start_after=Instant(EPOCH + 10), not_before=Instant(EPOCH + 20)))
    site.passes(10)
    assert (site.cycle(), site.station("t"), site.tenant.next_due()) == ([], PendingReason.BACKING_OFF, EPOCH + 20)


def test_an_edit_of_the_time_counts_at_once() -> None:
    site = Site(a=1)
    site.put(pending("t", start_after=Instant(LATER)))
    site.put(pending("t"))
    assert (site.station("t"), site.tenant.next_due()) == (READY, None)
    site.put(pending("t", start_after=Instant(LATER)))
    assert site.cycle() == []


def test_a_dependency_is_waited_for_after_the_time() -> None:
    site = Site()
    site.put(pending("t", start_after=Instant(LATER), depends_on=after("p")))
    assert site.word("t") == PendingReason.WAITING_FOR_START_TIME
    site.passes(100)
    site.decide()
    assert site.word("t") == PendingReason.WAITING_FOR_DEPENDENCY


# Requests of people


def test_who_is_asked_for_something_starts_nothing() -> None:
    site = Site(a=9)
    site.put(pending("c", cancel=True), pending("s", suspend=True), pending("r", suspended=Instant(EPOCH)))
    assert site.stations("csr") == [ANSWERING, PendingReason.SUSPENDED, ANSWERING]
    assert site.cycle() == []
    site.put(pending("s"), pending("r"))
    assert site.cycle() == ["s", "r"]


# Assumptions


def test_a_decided_task_is_not_decided_again_and_takes_its_slot_at_once() -> None:
    site = Site(a=1)
    site.put(pending("t"), pending("u"))
    [decision] = site.decide()
    assert (site.decide(), site.tenant.assumed) == ([], 1)
    site.put(held(decision.task, "a"))
    assert (site.tenant.assumed, site.running()) == (0, ["t"])


def test_a_late_version_does_not_take_back_what_is_decided() -> None:
    site = Site(a=1)
    site.put(pending("t"), pending("u"))
    [decision] = site.decide()
    site.put(replace(decision.task, resource_version="2", priority=-5))
    assert (site.decide(), site.station("t")) == ([], HELD)
    site.fail(decision, until=site.now + 1)
    assert site.task("t").resource_version == "2"
    assert [each.task.name for each in site.decide()] == ["u"], "the version that was late counts now"


def test_a_failed_assignment_is_decided_again_a_little_later() -> None:
    site = Site(a=1)
    site.put(pending("t"))
    [decision] = site.decide()
    site.fail(decision, until=site.now + 1)
    assert (site.station("t"), site.decide(), site.tenant.next_due()) == (PendingReason.BACKING_OFF, [], site.now + 1)
    site.fail(decision, until=site.now + 9)
    assert site.tenant.next_due() == site.now + 1, "it is told once"
    site.passes(1)
    assert site.cycle() == ["t"]


@pytest.mark.parametrize("late", [False, True], ids=["silence", "a late version"])
def test_while_a_write_is_in_doubt_its_slot_stays_taken(late: bool) -> None:
    """A version from before the write says nothing about it, however late it comes."""
    site = Site(a=1)
    site.put(pending("t"), pending("u"))
    [decision] = site.decide()
    site.fail(decision, until=site.now + 1, in_doubt=True)
    if late:
        site.put(replace(decision.task, resource_version="2"))
    assert (site.decide(), site.running()) == ([], ["t"])
    site.passes(1)
    assert len(site.decide()) == 1


def test_the_watch_resolves_a_doubt() -> None:
    site = Site(a=1)
    site.put(pending("t"), pending("u"))
    [decision] = site.decide()
    site.fail(decision, until=site.now + 1, in_doubt=True)
    site.put(held(decision.task, "a"))
    assert site.tenant.next_due() is None
    site.passes(1)
    assert (site.decide(), site.running()) == ([], ["t"])
    site.end("t")
    assert site.cycle() == ["u"]


@pytest.mark.parametrize("in_doubt", [False, True])
def test_what_an_assignment_in_flight_hid_from_us_counts_when_it_fails(in_doubt: bool) -> None:
    site = Site(a=1)
    site.put(pending("t"))
    [decision] = site.decide()
    site.put(replace(decision.task, depends_on=after("p"), generation=2))
    site.fail(decision, until=site.now + 1, in_doubt=in_doubt)
    site.passes(1)
    assert (site.decide(), site.station("t")) == ([], PendingReason.WAITING_FOR_DEPENDENCY)


@pytest.mark.parametrize("end", ["ended", "deleted"])
def test_a_task_that_is_gone_while_its_assignment_is_on_the_way_leaves_nothing(end: str) -> None:
    site = Site(a=1)
    site.put(pending("t", concurrency=key()))
    [decision] = site.decide()
    if end == "ended":
        site.put(ended(decision.task, Phase.CANCELLED))
    else:
        site.remove(decision.task)
    site.fail(decision, until=site.now + 1)
    site.assert_nothing_is_left()


def test_a_task_that_somebody_else_assigned_is_counted_there() -> None:
    site = Site(a=1, b=1)
    site.put(pending("t"))
    [decision] = site.decide()
    other = "b" if decision.worker.name == "a" else "a"
    site.put(held(decision.task, other))
    assert site.tenant.capacity.used(f"uid-of-{other}") == 1
    assert site.tenant.capacity.used(decision.worker.pod_uid) == 0


# Concurrency keys


@pytest.mark.parametrize("limit", [1, 3])
def test_a_key_lets_so_many_hold_a_worker_and_the_next_when_one_has_ended(limit: int) -> None:
    site = Site(a=9)
    site.put(*(pending(f"t{number}", concurrency=key(limit=limit)) for number in range(6)))
    assert len(site.cycle()) == limit
    assert (site.cycle(), site.word("t5")) == ([], PARKED)
    assert f"{limit} of {limit}" in site.says("t5")
    site.end("t0")
    assert site.cycle() == [f"t{limit}"]


def test_the_lowest_limit_of_those_that_live_holds() -> None:
    site = Site(a=9)
    site.put(*(pending(f"t{number}", concurrency=key(limit=3)) for number in range(5)))
    site.put(pending("strict", concurrency=key(limit=1), start_after=Instant(LATER)))
    assert len(site.cycle()) == 1
    site.remove(site.task("strict"))
    assert len(site.cycle()) == 2


def backs_off(site: Site) -> None:
    site.put(given_back(site.task("first"), until=LATER))


def is_given_back_and_held(site: Site) -> None:
    site.put(given_back(site.task("first"), suspend=True))


def is_deleted(site: Site) -> None:
    site.remove(site.task("first"))


def fails_for_good(site: Site) -> None:
    site.end("first", phase=Phase.FAILED)


@pytest.mark.parametrize("leave", [backs_off, is_given_back_and_held, is_deleted, fails_for_good])
def test_whoever_leaves_its_worker_frees_its_key(leave: Callable[[Site], None]) -> None:
    site = Site(a=9)
    site.put(pending("first", concurrency=key()))
    site.cycle()
    site.put(pending("next", concurrency=key()))
    assert site.station("next") is PARKED
    leave(site)
    assert site.cycle() == ["next"]


def test_an_assignment_that_fails_frees_its_key() -> None:
    site = Site(a=9)
    site.put(pending("first", concurrency=key()))
    [decision] = site.decide()
    site.put(pending("next", concurrency=key()))
    site.fail(decision, until=LATER)
    assert site.cycle() == ["next"]


def pause_its_queue(site: Site) -> None:
    site.queue("other", paused=True)


def delete_its_queue(site: Site) -> None:
    site.tenant.remove_queue("other", now=site.now)


def limit_its_queue(site: Site) -> None:
    site.queue("other", max_running=0)


def nothing(site: Site) -> None:
    """No worker fits it, or it is never there."""


def cancel_it(site: Site) -> None:
    site.put(replace(site.task("blocked"), cancel=True))


def delete_it(site: Site) -> None:
    site.remove(site.task("blocked"))


def delay_it(site: Site) -> None:
    site.put(replace(site.task("blocked"), start_after=Instant(LATER)))


@pytest.mark.parametrize(
    "obstacle", [pause_its_queue, delete_its_queue, limit_its_queue, nothing, cancel_it, delete_it, delay_it]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_nobody_is_left_parked_while_there_is_room(obstacle: Callable[[Site], None], when: str) -> None:
    """The first in line may get the room of the key and be unable to use it."""
    site = Site(Queue("other"), a=9)
    site.put(pending("first", concurrency=key()))
    site.cycle()
    requires = GPU if obstacle is nothing else ()
    site.put(pending("blocked", queue="other", priority=9, concurrency=key(), requires=requires))
    site.put(pending("next", concurrency=key()), pending("last", concurrency=key(limit=2)))
    if when == "before":
        obstacle(site)
    site.end("first")
    if when == "after":
        obstacle(site)
    assert site.cycle() == ["next"]
    site.end("next")
    assert site.cycle() == ["last"]


def test_a_parked_task_counts_for_max_pending() -> None:
    site = Site(Queue("default", max_pending=2), a=1)
    site.put(*(pending(f"t{number}", concurrency=key()) for number in range(4)))
    site.cycle()
    assert site.stations(["t0", "t1", "t2", "t3"]) == [HELD, PARKED, PARKED, OUTSIDE]


def test_a_task_may_change_its_key_while_it_is_parked() -> None:
    site = Site(a=9)
    site.put(pending("first", concurrency=key()))
    site.cycle()
    site.put(pending("t", concurrency=key()), pending("u", concurrency=key()))
    site.put(pending("t", concurrency=key("free")), pending("u"))
    assert site.cycle() == ["t", "u"]


def arrivals(policy: OnConflict, limit: int) -> tuple[Site, list[tuple[str, str]]]:
    """`limit` Tasks run, one waits for its key, and a new one comes."""
    site = Site(a=9)
    for number in range(limit):
        site.put(pending(f"r{number}", created=EPOCH + number, concurrency=key(limit=limit)))
    site.cycle()
    site.put(pending("w", created=EPOCH + 10, concurrency=key(limit=limit)))
    site.put(pending("n", created=EPOCH + 20, concurrency=key(limit=limit, on_conflict=policy)))
    assert site.decide() == []
    return site, site.verdicts()


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize(
    ("policy", "verdicts"),
    [
        (OnConflict.QUEUE, []),
        (OnConflict.REJECT, [("n", "Skipped(Rejected)")]),
        (OnConflict.REPLACE_PENDING, [("w", "Cancelled(Replaced)")]),
        (OnConflict.CANCEL_RUNNING, [("w", "Cancelled(Replaced)"), ("r0", "Stop(Cancelled)")]),
    ],
)
def test_each_policy_does_to_the_others_what_it_says(
    policy: OnConflict, verdicts: list[tuple[str, str]], limit: int
) -> None:
    site, found = arrivals(policy, limit)
    assert found == verdicts
    for name, _ in verdicts:
        site.put(ended(site.task(name), Phase.CANCELLED))
    for number in range(limit):
        if (f"uid-of-r{number}") in site.tenant.entries:
            site.end(f"r{number}")
    left = ["w", "n"] if not verdicts else ["w"] if verdicts[0][0] == "n" else ["n"]
    begun = site.cycle()
    if begun != left:  # one at a time
        site.end(*begun)
        begun += site.cycle()
    assert begun == left
    site.end(*[each for each in begun if f"uid-of-{each}" in site.tenant.entries])
    site.assert_nothing_is_left()


def test_a_newcomer_with_room_disturbs_nobody() -> None:
    site = Site(a=9)
    for number, policy in enumerate(OnConflict):
        site.put(pending(f"t{number}", concurrency=key(limit=4, on_conflict=policy)))
    assert (site.verdicts(), len(site.cycle())) == ([], 4)


@pytest.mark.parametrize("order", list(permutations(["old", "new", "running"])), ids=" ".join)
@pytest.mark.parametrize(
    ("policy", "verdicts"),
    [
        (OnConflict.REJECT, {("new", "Skipped(Rejected)")}),
        (OnConflict.REPLACE_PENDING, {("old", "Cancelled(Replaced)")}),
        (OnConflict.CANCEL_RUNNING, {("old", "Cancelled(Replaced)"), ("running", "Stop(Cancelled)")}),
    ],
)
def test_a_new_leader_judges_conflicts_whatever_it_saw_first(
    policy: OnConflict, verdicts: set[tuple[str, str]], order: tuple[str, ...]
) -> None:
    """Its predecessor may have died between seeing the new Task and writing what follows."""
    known = {
        "running": held(pending("running", concurrency=key()), "a"),
        "old": pending("old", created=EPOCH + 1, concurrency=key()),
        "new": pending("new", created=EPOCH + 2, concurrency=key(on_conflict=policy)),
    }
    site = Site(a=9)
    site.put(*(known[name] for name in order))
    assert site.decide() == []
    assert set(site.verdicts()) == verdicts


def test_a_retry_is_not_judged_again() -> None:
    site = Site(a=9)
    site.put(pending("t", concurrency=key(on_conflict=OnConflict.REJECT)))
    site.cycle()
    site.put(pending("next", concurrency=key()))
    site.put(given_back(site.task("t")))
    site.decide()
    assert site.verdicts() == []


# Condemned Tasks


def replaced(task: Task) -> Ending:
    return Ending(task, Phase.CANCELLED, EndReason.REPLACED, "its schedule says Replace")


def test_a_condemned_task_that_waits_ends_and_starts_no_more() -> None:
    site = Site(a=1)
    site.put(pending("t", concurrency=key()), pending("u", concurrency=key()))
    site.tenant.condemn(replaced(site.task("t")))
    assert (site.verdicts(), site.station("t"), site.cycle()) == ([("t", "Cancelled(Replaced)")], ENDING, ["u"])
    site.tenant.reconsider("uid-of-t", now=site.now)
    assert site.verdicts() == [("t", "Cancelled(Replaced)")]


@pytest.mark.parametrize("on_its_way", [False, True], ids=["held", "on its way"])
def test_a_condemned_task_that_runs_is_stopped_and_then_ended(on_its_way: bool) -> None:
    site = Site(a=1)
    site.put(pending("t"))
    [decision] = site.decide()
    if on_its_way:
        site.tenant.condemn(replaced(site.task("t")))
        assert site.verdicts() == []
    site.put(held(decision.task, "a"))
    if not on_its_way:
        site.tenant.condemn(replaced(site.task("t")))
    assert site.verdicts() == [("t", "Stop(Cancelled)")]
    site.put(replace(site.task("t"), stop_requested=True))
    assert site.verdicts() == []
    site.put(given_back(site.task("t")))
    assert (site.verdicts(), site.decide()) == ([("t", "Cancelled(Replaced)")], [])
    site.put(ended(site.task("t"), Phase.CANCELLED))
    site.assert_nothing_is_left()


def test_a_condemned_task_whose_assignment_fails_ends() -> None:
    site = Site(a=1)
    site.put(pending("t"))
    [decision] = site.decide()
    site.tenant.condemn(replaced(site.task("t")))
    site.fail(decision, until=LATER)
    assert site.verdicts() == [("t", "Cancelled(Replaced)")]


def test_a_new_run_is_not_condemned_with_the_one_before() -> None:
    site = Site(a=1)
    site.put(pending("t"))
    site.tenant.condemn(replaced(site.task("t")))
    site.put(pending("t", run_number=2))
    assert site.cycle() == ["t"]


# Changes while waiting


def test_what_changes_while_a_task_waits_counts_at_the_next_decision() -> None:
    site = Site(a=4)
    site.put(pending("large", slots=5), pending("low"), pending("gpu", requires=GPU))
    site.queue("default", paused=True)
    site.put(replace(site.task("large"), slots=2), replace(site.task("low"), priority=5))
    site.put(replace(site.task("gpu"), requires=()))
    site.queue("default")
    assert site.cycle() == ["low", "large", "gpu"]
    assert site.tenant.capacity.used("uid-of-a") == 4


def test_a_task_that_was_run_before_runs_again() -> None:
    site = Site(a=1)
    site.put(pending("t", concurrency=key()))
    site.cycle()
    running = site.task("t")
    site.end("t")
    site.assert_nothing_is_left()
    site.put(given_back(running, run_number=2, queued=Instant(EPOCH + 50)))
    assert site.cycle() == ["t"]
    assert site.task("t").attempt == 2


# What is left


def walk(site: Site, last: str) -> None:
    """A Task with everything, through all stations."""
    everything: dict[str, Any] = {"concurrency": key(), "fairness_key": "f", "slots": 2, "queue": "q"}
    site.put(pending("t", **everything, template="tpl", depends_on=after("p"), start_after=Instant(LATER)))
    site.queue("q", max_pending=1, max_running=1, rate_limit=RateLimit(1.0, 1))
    site.tenant.put_template(Template("tpl"), now=site.now)
    site.passes(200)
    site.decide()
    site.put(ended(pending("p")))
    if last == "ready":
        return
    [decision] = site.decide()
    if last == "assumed":
        return
    if last == "in doubt":
        site.fail(decision, until=site.now + 5, in_doubt=True)
        return
    site.put(held(decision.task, "a"))
    if last == "backing off":
        site.put(given_back(site.task("t"), until=site.now + 50))
    elif last == "condemned":
        site.tenant.condemn(replaced(site.task("t")))
    elif last == "queue gone":
        site.tenant.remove_queue("q", now=site.now)
    elif last == "alone":
        dying = replace(site.task("t").spent, runner_deaths=2)
        site.put(given_back(site.task("t"), spent=dying))
        site.passes(5)
        site.decide()


@pytest.mark.parametrize(
    "last", ["ready", "assumed", "in doubt", "held", "backing off", "condemned", "queue gone", "alone"]
)
@pytest.mark.parametrize("end", ["ended", "deleted"])
def test_nothing_is_left_of_a_task_wherever_it_stood(last: str, end: str) -> None:
    site = Site(a=4, b=4)
    walk(site, last)
    if end == "ended":
        site.end("t")
    site.remove(ended(pending("t")))
    site.passes(1_000)
    site.decide()
    site.remove(ended(pending("p")))
    site.assert_nothing_is_left()


def test_equal_tasks_share_their_shape() -> None:
    site = Site()
    site.put(pending("a", requires=GPU), pending("b", requires=tuple(GPU)))
    first, second = (site.tenant.entries[f"uid-of-{name}"].shape for name in "ab")
    assert first is second
    assert first == Shape("default", requires=GPU)


def test_a_worker_that_comes_gets_what_waits_for_it() -> None:
    site = Site()
    site.put(pending("t"))
    assert (site.decide(), site.word("t")) == ([], PendingReason.NO_MATCHING_WORKER)
    site.tenant.capacity.put_worker(worker("a", schedulable=False))
    assert (site.decide(), site.word("t")) == ([], PendingReason.NO_MATCHING_WORKER)
    site.tenant.capacity.put_worker(worker("a"))
    assert site.cycle() == ["t"]


def test_the_reason_of_a_stop_says_who_asked() -> None:
    site = Site(Queue("default", drain=True))
    site.put(held(pending("t")))
    site.tenant.condemn(replaced(site.task("t")))
    assert [each.reason for each in site.tenant.verdicts if hasattr(each, "reason")] == [
        StopReason.DRAINED,
        StopReason.CANCELLED,
    ]
