"""Who gets which slot: queues, backlogs and workers together, in single situations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.builders import EPOCH, worker
from tests.unit.tenant_rig import Site, given_back, held, key, pending

from taskmaster.core.queue import Queue, RateLimit
from taskmaster.core.reason import PendingReason
from taskmaster.core.requirements import Operator, Requirement
from taskmaster.core.retry import Outcome, Spent
from taskmaster.core.station import Place
from taskmaster.core.task import Task

GPU = (Requirement("gpu", Operator.EXISTS),)


def pairs(site: Site, *, at_most: int = 100) -> list[tuple[str, str]]:
    decisions = site.decide(at_most)
    site.put(*(held(each.task, each.worker.name) for each in decisions))
    return [(each.task.name, each.worker.name) for each in decisions]


def site_of(*tasks: Task, **slots: Any) -> Site:
    site = Site(**slots)
    site.put(*tasks)
    return site


def failed_on(name: str, worker_name: str, **fields: Any) -> Task:
    return pending(name, attempt=1, attempts=({"outcome": Outcome.FAILED, "worker": worker_name},), **fields)


def suspect(name: str, **fields: Any) -> Task:
    """A Task under which the runner died twice."""
    return pending(name, spent=Spent(runner_deaths=2), **fields)


def busy(site: Site, **numbers: int) -> None:
    """Let workers run so many Tasks already."""
    for name, number in numbers.items():
        site.put(*(held(pending(f"old-{name}{each}"), name) for each in range(number)))


def test_most_urgent_tasks_get_the_slots_and_the_rest_stays() -> None:
    site = site_of(pending("low"), pending("high", priority=9), pending("middle", priority=5), a=1, b=1)
    assert pairs(site) == [("high", "a"), ("middle", "b")]
    assert site.station("low") is Place.READY


def test_load_is_spread() -> None:
    site = site_of(*(pending(f"t{number}") for number in range(6)), a=4, b=4, c=4)
    assert sorted(name for _, name in pairs(site)) == ["a", "a", "b", "b", "c", "c"]


def test_at_most_bounds_the_decisions_and_nothing_is_lost() -> None:
    site = site_of(pending("1"), pending("2"), pending("3"), a=9)
    assert len(pairs(site, at_most=2)) == 2
    assert (pairs(site, at_most=0), pairs(site, at_most=-1)) == ([], [])
    assert pairs(site) == [("3", "a")]


def test_a_retry_avoids_the_worker_that_failed_it_where_another_fits() -> None:
    assert pairs(site_of(failed_on("t", "a"), a=9, b=1)) == [("t", "b")]
    assert pairs(site_of(failed_on("t", "a"), a=9)) == [("t", "a")]


def test_avoiding_a_worker_costs_the_others_nothing() -> None:
    assert pairs(site_of(failed_on("retry", "a", priority=9), pending("new"), a=1, b=1)) == [
        ("retry", "b"),
        ("new", "a"),
    ]


def test_what_fits_nowhere_holds_nobody_up() -> None:
    site = Site(Queue("other"), a=1)
    site.put(*(pending(f"gpu{number}", requires=GPU, priority=9) for number in range(5)), pending("t", queue="other"))
    site.put(pending("u"))
    assert sorted(site.cycle() + site.cycle()) in (["t"], ["u"])
    site.end(*site.running())
    assert len(site.cycle()) == 1


# Alone, or large


def test_a_suspect_gets_a_worker_of_its_own() -> None:
    site = site_of(suspect("s", priority=1), pending("1"), pending("2"), a=4, b=4)
    assert sorted(pairs(site)) == [("1", "b"), ("2", "b"), ("s", "a")]


def test_a_suspect_waits_until_its_worker_is_empty_and_nothing_new_comes_there() -> None:
    site = Site(a=4, b=4)
    busy(site, a=1, b=2)
    site.put(suspect("s", priority=1), pending("new"))
    assert pairs(site) == [("new", "b")]
    site.put(*(pending(f"more-{number}") for number in range(9)))
    assert {name for _, name in pairs(site)} == {"b"}
    site.end("old-a0")
    assert pairs(site) == [("s", "a")]
    site.end("s")
    assert {name for _, name in pairs(site)} == {"a"}


def test_a_suspect_takes_another_worker_when_the_kept_one_leaves() -> None:
    site = Site(a=1, b=1)
    busy(site, a=1, b=1)
    site.put(suspect("s"))
    assert pairs(site) == []
    site.tenant.capacity.put_worker(worker("a", slots=1, schedulable=False))
    assert pairs(site) == []
    site.end("old-b0")
    assert pairs(site) == [("s", "b")]


def test_suspects_leave_half_of_the_workers_to_the_others() -> None:
    site = Site(a=2, b=2, c=2, d=2, e=2)
    site.put(*(suspect(f"s{number}", priority=9) for number in range(5)), *(pending(f"{each}") for each in range(9)))
    placed = pairs(site)
    assert [name for name, _ in placed if name.startswith("s")] == ["s0", "s1"]
    assert len({name for task, name in placed if not task.startswith("s")}) == 3
    site.end("s0")
    assert [name for name, _ in pairs(site) if name.startswith("s")] == ["s2"]


def test_suspects_run_one_after_the_other_where_there_is_one_worker() -> None:
    site = site_of(suspect("s1", priority=1), suspect("s2"), a=4)
    assert (pairs(site), pairs(site)) == ([("s1", "a")], [])
    site.end("s1")
    assert pairs(site) == [("s2", "a")]


def test_suspects_that_need_other_workers_do_not_forget_to_take_turns() -> None:
    site = Site(a=1)
    site.tenant.capacity.put_worker(replace(worker("g", slots=1), labels={"gpu": ""}))
    busy(site, g=1)
    site.put(suspect("s1", priority=1, requires=(Requirement("gpu", Operator.DOES_NOT_EXIST),)))
    site.put(suspect("s2", requires=GPU))
    assert pairs(site) == [("s1", "a")]
    site.end("old-g0")
    assert pairs(site) == [], "only one of two workers is kept"
    site.end("s1")
    assert pairs(site) == [("s2", "g")]


def test_a_large_task_is_not_passed_by_for_ever_by_small_ones() -> None:
    site = Site(a=4, b=4)
    site.put(*(pending(f"old{number}") for number in range(8)))
    site.cycle()
    site.put(pending("large", slots=4), *(pending(f"new{number}", created=EPOCH + 1) for number in range(20)))
    started: list[str] = []
    while "large" not in started:
        assert len(started) < 10
        site.end(site.running()[-1])  # an old one, while there is one
        started += site.cycle()


@pytest.mark.parametrize(
    "limit", [{"max_running": 1}, {"rate_limit": RateLimit(1.0, 1)}], ids=["maxRunning", "rateLimit"]
)
def test_a_large_task_keeps_its_worker_while_its_queue_is_at_a_limit(limit: Any) -> None:
    """Else each small Task of the queue, by reaching the limit, would take it from the large one."""
    site = Site(Queue("q", **limit), a=4, b=4)
    busy(site, a=3, b=1)
    site.put(pending("large", queue="q", slots=4), pending("small", queue="q"))
    assert pairs(site) == [("small", "a")]
    site.put(*(pending(f"other{number}") for number in range(9)))
    assert site.cycle() == []
    site.end("small", "old-b0")
    site.passes(1)
    assert ("large", "b") in pairs(site)


def pause(site: Site) -> None:
    site.queue("q", paused=True)


def delete_the_queue(site: Site) -> None:
    site.tenant.remove_queue("q", now=site.now)


def suspend(site: Site) -> None:
    site.put(replace(site.task("large"), suspend=True))


def delete(site: Site) -> None:
    site.remove(site.task("large"))


def want_less(site: Site) -> None:
    site.put(replace(site.task("large"), requires=GPU))


@pytest.mark.parametrize("change", [pause, delete_the_queue, suspend, delete, want_less])
def test_a_worker_is_kept_only_while_a_task_wants_it(change: Callable[[Site], None]) -> None:
    site = Site(Queue("q"), a=4)
    busy(site, a=1)
    site.put(pending("large", queue="q", slots=4, priority=5))
    site.cycle()
    site.put(pending("small"))
    assert site.cycle() == []
    change(site)
    assert site.cycle() == ["small"]
    assert site.tenant.capacity._reservations == {}


@pytest.mark.parametrize("closed", [False, True], ids=["backs off", "in a paused queue"])
def test_a_suspect_that_comes_back_gives_up_its_worker(closed: bool) -> None:
    site = site_of(suspect("s"), a=4)
    site.cycle()
    site.put(pending("t", queue="other"))
    site.queue("other")
    if closed:
        site.queue("default", paused=True)
    site.put(given_back(site.task("s"), until=None if closed else EPOCH + 100))
    assert pairs(site) == [("t", "a")]


def test_a_shape_keeps_one_worker_whoever_of_it_comes_first() -> None:
    site = Site(a=4, b=4, c=4, d=4)
    busy(site, a=1, b=2, c=2, d=2)
    site.put(pending("first", slots=4))
    site.cycle()
    site.put(pending("urgent", slots=4, priority=9))
    site.end("old-b0", "old-b1")
    assert pairs(site) == [("urgent", "b")]
    site.put(pending("more urgent", slots=4, priority=99))
    site.end("old-c0")
    assert pairs(site) == []
    assert len(site.tenant.capacity._reservations) == 1
    site.queue("default", paused=True)
    site.cycle()
    assert site.tenant.capacity._reservations == {}


# Queues beside each other


def test_a_queue_at_its_limit_leaves_the_slots_to_others() -> None:
    site = Site(Queue("a", max_running=1), Queue("b"), w=4)
    site.put(*(pending(f"{queue}{number}", queue=queue) for queue in "ab" for number in range(5)))
    assert sorted(site.cycle()) == ["a0", "b0", "b1", "b2"]


def test_a_parked_task_leaves_its_turn_to_the_next() -> None:
    site = Site(w=4)
    site.put(*(pending(f"k{number}", priority=9, concurrency=key()) for number in range(5)), pending("t"))
    assert site.cycle() == ["k0", "t"]
    assert site.word("k4") == PendingReason.CONCURRENCY_LIMIT


def test_a_clock_that_is_set_back_starts_nothing_early_and_holds_nothing_up() -> None:
    site = Site(Queue("default", rate_limit=RateLimit(1.0, 1)), w=4)
    site.put(pending("a"), pending("b"), pending("later", not_before=EPOCH + 50, attempt=1))
    assert site.cycle() == ["a"]
    site.passes(-3_600)
    assert site.cycle() == []
    site.passes(1)
    assert site.cycle() == ["b"]
    site.passes(3_600)
    assert site.cycle() == []
    site.passes(50)
    assert site.cycle() == ["later"]
