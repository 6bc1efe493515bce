"""Slots: an attempt takes as many as its Task says, and what runs never takes more than the worker has."""

import asyncio
from random import Random
from typing import Any

import pytest
from tests.unit.agent_worker import Stage, until, working

from taskmaster.core.phase import ASSIGNED_PHASES, TERMINAL
from taskmaster.kube.api import WatchEvent

pytestmark = pytest.mark.looptime


def wide(slots: int) -> dict[str, Any]:
    return {"resources": {"slots": slots}}


async def begun(on: Stage, *attempts: str) -> None:
    await until(lambda: set(attempts) <= on.runner.frames.keys())


async def released(on: Stage, name: str) -> str:
    """Wait until a Task was given back, charged to nothing; return why."""
    await until(lambda: on.phase(name) == "Pending" and bool(on.status(name).get("attempts")))
    status = on.status(name)
    assert status["attempts"][-1]["outcome"] == "Released"
    assert not any(status.get(budget) for budget in ("failures", "workerLosses", "interruptions"))
    return str(status["attempts"][-1]["message"])


def taken(on: Stage) -> tuple[float, float]:
    """The metrics: slots that are taken, and attempts that run."""
    return on.metric("taskmaster_worker_slots_taken"), on.metric("taskmaster_worker_attempts_running")


async def test_a_task_takes_as_many_slots_as_it_says() -> None:
    async with working(slots=4) as on:
        three, one = on.submit("three", **wide(3)), on.submit("one")
        await begun(on, three, one)
        assert taken(on) == (4, 2)
        assert on.metric("taskmaster_worker_slots") == 4
        on.submit("more")
        assert await released(on, "more") == "the worker was full"
        on.runner.exit(three)
        two, again = on.submit("two", **wide(2)), on.assign("more")
        await begun(on, two, again)
        assert taken(on) == (4, 3)


async def test_what_does_not_fit_beside_the_others_is_given_back() -> None:
    async with working(slots=4) as on:
        await begun(on, on.submit("three", **wide(3)))
        attempt = on.submit("two", **wide(2))
        assert await released(on, "two") == "the worker was full"
        assert attempt not in on.runner.frames


async def test_what_would_not_fit_into_an_empty_worker_is_given_back() -> None:
    async with working(slots=4) as on:
        attempt = on.submit("five", **wide(5))
        assert await released(on, "five") == "it takes 5 slots, and the worker has 4"
        assert attempt not in on.runner.frames
        await begun(on, on.submit("four", **wide(4)))


async def test_the_assignment_says_best_how_many_slots_there_are_to_take() -> None:
    """A template may have said so: the spec of the Task does not know."""
    async with working(slots=4) as on:
        on.api.events = with_slots(3)
        await begun(on, on.submit("three"))
        assert taken(on) == (3, 1)
        on.api.events = with_slots(1)
        await begun(on, on.submit("one", **wide(4)))
        assert taken(on) == (4, 2)


async def test_slots_that_are_no_number_end_the_attempt_with_a_record() -> None:
    async with working(slots=4) as on:
        on.api.events = with_slots("many")
        on.submit("a")
        await until(lambda: on.phase("a") == "Pending")
        record = on.status("a")["attempts"][-1]
        assert (record["outcome"], record["reason"]) == ("Failed", "StartFailed")
        assert "many" in record["message"]


async def test_processes_in_their_grace_hold_back_what_needs_their_slots() -> None:
    async with working(slots=4) as on:
        one, two = on.submit("one", **wide(2)), on.submit("two", **wide(2))
        await begun(on, one, two)
        on.requeue("one")
        on.requeue("two")
        await until(lambda: len(on.runner.stops) == 2)
        four = on.submit("four", **wide(4))
        await asyncio.sleep(1)
        on.runner.exit(one)
        await asyncio.sleep(5)
        assert four not in on.runner.frames
        assert on.phase("four") == "Assigned"
        assert taken(on) == (2, 1)
        on.submit("late")
        assert await released(on, "late") == "the worker was full"
        on.runner.exit(two)
        await begun(on, four)


async def test_what_fits_beside_a_process_in_its_grace_need_not_wait_for_an_older_one_that_does_not() -> None:
    async with working(slots=4) as on:
        old = on.submit("old", **wide(3))
        await begun(on, old)
        on.requeue("old")
        await until(lambda: bool(on.runner.stops))
        big, small = on.submit("big", **wide(3)), on.submit("small")
        await begun(on, small)
        assert big not in on.runner.frames
        on.runner.exit(old)
        await begun(on, big)
        assert taken(on) == (4, 2)


async def test_of_two_that_wait_only_those_begin_that_fit_together() -> None:
    async with working(slots=6) as on:
        four, two = on.submit("four", **wide(4)), on.submit("two", **wide(2))
        await begun(on, four, two)
        on.requeue("four")
        on.requeue("two")
        await until(lambda: len(on.runner.stops) == 2)
        first, second = on.submit("first", **wide(3)), on.submit("second", **wide(3))
        await asyncio.sleep(1)
        on.runner.exit(four)
        await begun(on, first)
        await asyncio.sleep(1)
        assert second not in on.runner.frames
        on.runner.exit(two)
        await begun(on, second)


async def test_while_it_is_prepared_an_attempt_holds_all_its_slots() -> None:
    async with working(slots=4) as on:
        on.create("parent")
        on.api.latency = 5.0
        attempt = on.submit("a", dependsOn=[{"name": "parent"}], **wide(3))
        await until(lambda: taken(on) == (3, 1))
        assert attempt not in on.runner.frames
        await begun(on, attempt)


class Processes:
    """Those of the runner that the test plays, with the slots that they take; it counts whenever one starts."""

    def __init__(self, on: Stage, slots: int) -> None:
        self._on, self._slots, self._start = on, slots, on.runner.start
        self.wanted: dict[str, int] = {}
        self.alive: dict[str, int] = {}
        self.most = 0
        on.runner.start = self.start  # type: ignore[method-assign]

    def start(self, frame: Any) -> None:
        self._start(frame)
        self.alive[frame["id"]] = self.wanted[frame["id"]]
        self.most = max(self.most, sum(self.alive.values()))
        assert self.most <= self._slots
        assert sum(self.alive.values()) <= self._on.worker.attempts.slots_taken <= self._slots

    def end(self, attempt: str) -> None:
        del self.alive[attempt]
        self._on.runner.exit(attempt)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_arrives_never_runs_on_more_slots_than_there_are(seed: int) -> None:
    """A coordinator that assigns at random, takes away at random, and does not know what fits."""
    random = Random(seed)
    async with working(slots=5) as on:
        processes = Processes(on, 5)
        widths: dict[str, int] = {}
        on.create("parent")

        def assign(name: str) -> None:
            processes.wanted[on.assign(name)] = widths[name]

        def act() -> None:
            names = list(widths)
            held = [name for name in names if on.phase(name) in ASSIGNED_PHASES]
            waiting = [name for name in names if on.phase(name) == "Pending"]
            match random.choices(["submit", "assign", "end", "requeue", "cancel"], [8, 4, 6, 3, 1])[0]:
                case "submit":
                    name = f"t{len(widths)}"
                    widths[name] = random.randint(1, 6)
                    needs = {"dependsOn": [{"name": "parent"}]} if random.random() < 0.3 else {}
                    on.create(name, **wide(widths[name]), **needs)
                    assign(name)
                case "assign" if waiting:
                    assign(random.choice(waiting))
                case "end" if processes.alive:
                    processes.end(random.choice(list(processes.alive)))
                case "requeue" if held:
                    on.requeue(name := random.choice(held))
                    if random.random() < 0.5:
                        assign(name)
                case "cancel" if held:
                    on.edit(random.choice(held), cancel=True)

        for _ in range(200):
            act()
            await asyncio.sleep(random.choice([0.0, 0.005, 0.02, 0.3]))
        while processes.alive or not on.worker.attempts.empty.is_set():
            for attempt in list(processes.alive):
                processes.end(attempt)
            await asyncio.sleep(0.5)
        assert processes.most == 5, "the worker was full at least once"
        assert all(on.phase(name) in {*TERMINAL, "Pending"} for name in widths)
        too_wide = {name for name, slots in widths.items() if slots > 5}
        assert too_wide
        assert not any(on.phase(name) == "Succeeded" for name in too_wide)
        assert taken(on) == (0, 0)


def with_slots(slots: object) -> Any:
    """As events of the watch: an assignment that says how many slots it takes."""

    def change(event: WatchEvent) -> tuple[WatchEvent]:
        if "assignment" in event.object.get("status", {}):
            event.object["status"]["assignment"]["slots"] = slots
        return (event,)

    return change
