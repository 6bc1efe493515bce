"""TaskSchedules: each occurrence becomes one Task, whatever restarts, fails or is edited; the status is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from tests.builders import EPOCH, NAMESPACE, assignment
from tests.sim.coordinator_rig import monotonic
from tests.sim.memory_api import Call, Fault, MemoryApi, lost_answer
from tests.sim.memory_server import MemoryServer

from taskmaster.api import decode, names
from taskmaster.api.models.taskschedule import TaskScheduleStatus
from taskmaster.api.times import from_wire, to_wire
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.schedules import ScheduleController
from taskmaster.coordinator.ttl import TtlController
from taskmaster.core.task import Instant
from taskmaster.kube.api import MergePatch
from taskmaster.kube.dispatcher import Dispatcher
from taskmaster.kube.errors import Forbidden, ServerError, Unanswered, Unprocessable
from taskmaster.kube.informer import Informer
from taskmaster.kube.resource import TASKS, TASKSCHEDULES, Object, Resource

pytestmark = pytest.mark.looptime


class World:
    """The server, its clock, and what happens to schedules and Tasks."""

    def __init__(self) -> None:
        self.set_back = 0.0
        self.server = MemoryServer(now=lambda: datetime.fromtimestamp(self.now(), UTC))

    def now(self) -> Instant:
        """The time of day, as the machines believe."""
        return Instant(EPOCH + asyncio.get_running_loop().time() - self.set_back)

    def create(self, name: str = "s", **spec: Any) -> Object:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "TaskSchedule",
            "metadata": {"name": name, "annotations": {}},
            "spec": {"everySeconds": 60, "taskTemplate": {"spec": {"run": {"command": ["true"]}}}, **spec},
        }
        return self.server.create(TASKSCHEDULES, NAMESPACE, body)

    def edit(self, name: str = "s", **spec: Any) -> None:
        self.server.patch(TASKSCHEDULES, NAMESPACE, name, MergePatch({"spec": spec}))

    def annotate(self, value: str, name: str = "s") -> None:
        body = {"metadata": {"annotations": {names.RUN_NOW_ANNOTATION: value}}}
        self.server.patch(TASKSCHEDULES, NAMESPACE, name, MergePatch(body))

    def status(self, name: str = "s") -> Object:
        found: Object = self.server.read(TASKSCHEDULES, NAMESPACE, name)["status"]
        return found

    def ready(self, name: str = "s") -> tuple[str, str]:
        (condition,) = self.status(name)["conditions"]
        return condition["status"], condition["reason"]

    def message(self, name: str = "s") -> str:
        (condition,) = self.status(name)["conditions"]
        return str(condition["message"])

    def tasks(self) -> dict[str, Object]:
        """By their occurrence in seconds from the beginning, or by their name."""
        found = {}
        for task in self.server.select(TASKS):
            metadata = task["metadata"]
            time = metadata.get("annotations", {}).get(names.SCHEDULED_TIME_ANNOTATION)
            found[f"{from_wire(time) - EPOCH:g}" if time else metadata["name"]] = task
        return found

    def phases(self) -> dict[str, str]:
        return {key: task["status"]["phase"] for key, task in self.tasks().items()}

    def fired(self) -> list[int]:
        """Every Task that was ever created by time: its occurrence, in seconds from the beginning."""
        return [
            round(from_wire(time) - EPOCH)
            for change in self.server.history
            if change.resource is TASKS and change.before is None and change.after is not None
            if (time := change.after["metadata"]["annotations"].get(names.SCHEDULED_TIME_ANNOTATION))
        ]

    def set(self, key: str, **status: Any) -> None:
        name = self.tasks()[key]["metadata"]["name"]
        self.server.patch(TASKS, NAMESPACE, name, MergePatch({"status": status}), subresource="status")

    def hold(self, key: str) -> None:
        self.set(key, phase="Running", attempt=1, assignment=assignment())

    def finish(self, key: str, phase: str = "Succeeded") -> None:
        self.set(key, phase=phase, completionTime=to_wire(self.now()))

    def writes(self, verb: str = "patch", what: str = "taskschedules/status") -> int:
        return self.server.writes[verb, what]


class Operator:
    """One coordinator's share in it: an informer of Tasks, the controller, and the events that kopf would bring."""

    def __init__(self, world: World, name: str = "o1") -> None:
        self.world = world
        self.faults: Callable[[Call], Fault | None] = lambda call: None
        self.api = MemoryApi(world.server, client=name, latency=0.001, faults=lambda call: self.faults(call))
        self.cache = Cache(wake=lambda: None, clock=world.now)
        self.informer: Informer[Any] = Informer(
            self.api,
            TASKS,
            transform=decode.task,
            on_deltas=self.cache.on_tasks,
            clock=monotonic,
            random=Random(1),
        )
        self.dispatcher = Dispatcher(self.api, concurrency=4, clock=monotonic, random=Random(1))
        self.ttl = TtlController(self.cache, self.dispatcher, ready=self.informer.synced.is_set, clock=world.now)
        self.leads = True
        self.controller = ScheduleController(
            self.api,
            self.cache,
            self.dispatcher,
            self.dispatcher,
            may_write=lambda: self.leads,
            clock=monotonic,
            wall_clock=world.now,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Operator]:
        parts = [asyncio.create_task(part.run()) for part in (self.informer, self.dispatcher)]
        await self.informer.synced.wait()
        parts += [asyncio.create_task(work) for work in (self.ttl.run(), self.controller.run(), self._tell())]
        try:
            yield self
            for part in parts:
                assert not part.done(), part.exception()
        finally:
            for part in parts:
                part.cancel()
                with suppress(asyncio.CancelledError):
                    await part

    async def _tell(self) -> None:
        found = await self.api.list(TASKSCHEDULES)
        for item in found.items:
            self.controller.schedule_changed(item, False)
        events = self.api.watch(TASKSCHEDULES, resource_version=found.resource_version, timeout_seconds=10**9)
        async for event in events:
            if event.type != "BOOKMARK":
                self.controller.schedule_changed(event.object, event.type == "DELETED")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def operator(world: World) -> Operator:
    return Operator(world)


async def until(seconds: float) -> None:
    """Sleep until so many seconds from the beginning have passed."""
    await asyncio.sleep(seconds - asyncio.get_running_loop().time())


def created(call: Call) -> bool:
    return call.verb == "create" and call.resource is TASKS


def told(call: Call) -> bool:
    return call.verb == "patch" and call.resource is TASKSCHEDULES


async def test_an_occurrence_becomes_a_task_of_the_schedule(world: World, operator: Operator) -> None:
    async with operator.running():
        metadata = {"labels": {"team": "red"}, "annotations": {"note": "x"}}
        spec = {"run": {"command": ["ls"]}, "priority": 5}
        obj = world.create(taskTemplate={"metadata": metadata, "spec": spec})
        await until(59)
        assert world.tasks() == {}
        await until(60.1)
        task = world.tasks()["60"]
        assert task["metadata"]["name"] == f"s-{EPOCH + 60:.0f}"
        assert task["metadata"]["labels"] == {"team": "red", names.SCHEDULE_LABEL: "s"}
        assert task["metadata"]["annotations"]["note"] == "x"
        (owner,) = task["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (obj["metadata"]["uid"], True, False)
        assert task["spec"] == spec


async def test_the_status_says_what_is_so(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=60, schedules=["0 4 * * *"])
        await until(1)
        status = world.status()
        assert status["nextRunTime"] == to_wire(EPOCH + 60)[:19] + "Z"
        assert status["schedule"] == "0 4 * * *; every 60 s"
        assert (status["observedGeneration"], status["runs"], status["missed"], status["activeCount"]) == (1, 0, 0, 0)
        assert world.ready() == ("True", "Scheduled")
        await until(61)
        name = world.tasks()["60"]["metadata"]["name"]
        status = world.status()
        assert (status["active"], status["activeCount"], status["runs"]) == ([name], 1, 1)
        assert from_wire(status["lastScheduleTime"]) == from_wire(status["highWaterTime"]) == EPOCH + 60
        assert from_wire(status["nextRunTime"]) == EPOCH + 120
        assert "lastSuccessfulTime" not in status
        world.finish("60")
        await until(70)
        status = world.status()
        assert (status["active"], status["activeCount"]) == ([], 0)
        assert from_wire(status["lastSuccessfulTime"]) == EPOCH + 61
        assert TaskScheduleStatus.model_validate(status).missed == 0


async def test_an_occurrence_costs_a_create_and_at_most_two_writes_of_the_status(
    world: World, operator: Operator
) -> None:
    async with operator.running():
        world.create()
        await until(30)
        before = world.writes()
        for minute in range(1, 11):
            await until(60 * minute + 1)
            world.finish(f"{60 * minute}")
        await until(630)
        assert world.writes("create", "tasks") == 10
        assert world.writes() - before <= 20


async def test_a_quiet_schedule_is_not_written(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=None, schedule="0 0 1 1 *")
        await until(10)
        before, calls = world.writes(), len(operator.api.calls)
        await until(3_600)
        assert world.writes() == before
        assert [call for call in operator.api.calls[calls:] if call.verb not in ("watch", "list")] == []


async def test_a_restart_across_a_firing_makes_one_task(world: World) -> None:
    async with Operator(world, "first").running():
        world.create()
        await until(55)
    await until(65)
    async with Operator(world, "second").running():
        await until(70)
        assert world.fired() == [60]
        await until(121)
    assert world.fired() == [60, 120]


@pytest.mark.parametrize("where", ["before the create", "after the create", "before the status", "after the status"])
async def test_an_operator_that_dies_at_a_firing_leaves_one_task_per_occurrence(world: World, where: str) -> None:
    async with Operator(world, "first").running() as first:
        world.create()
        await until(50)
        matches = created if "create" in where else told
        hang = Fault(delay=10**6) if "before" in where else Fault(delay_answer=10**6)
        first.faults = lambda call: hang if matches(call) else None
        await until(63)
    async with Operator(world, "second").running():
        await until(70)
        assert world.fired() == [60]
        assert world.status()["runs"] == 1
        await until(121)
        assert world.fired() == [60, 120]
        assert world.status()["runs"] == 2


async def test_two_operators_by_mistake_make_one_task_per_occurrence(world: World) -> None:
    async with Operator(world, "first").running(), Operator(world, "second").running():
        world.create(everySeconds=10)
        await until(101)
    assert sorted(world.fired()) == list(range(10, 101, 10))


@pytest.mark.parametrize("fields", [{"successfulTasksHistoryLimit": 0}, {"ttl": 0}], ids=["history", "ttl"])
async def test_no_task_is_deleted_before_its_occurrence_is_remembered(world: World, fields: Object) -> None:
    ttl = {"ttlSecondsAfterFinished": fields.pop("ttl")} if "ttl" in fields else {}
    template = {"spec": {"run": {"command": ["true"]}, **ttl}}
    async with Operator(world, "first").running() as first:
        world.create(everySeconds=2, taskTemplate=template, **fields)
        await until(19)
        first.faults = lambda call: Fault(before=Unanswered("no")) if told(call) else None
        for _ in range(10):
            await asyncio.sleep(1)
            for key, phase in world.phases().items():
                if phase == "Pending":
                    world.finish(key)
        assert sorted(world.tasks()) == ["20", "22", "24", "26", "28"]
    async with Operator(world, "second").running():
        await until(100)
        assert "28" not in world.tasks()
    fired = world.fired()
    assert sorted(set(fired)) == sorted(fired)


async def test_a_clock_set_back_an_hour_fires_nothing_twice(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=600)
        await until(3_700)
        assert world.fired() == [600, 1_200, 1_800, 2_400, 3_000, 3_600]
        world.set_back = 3_600.0
        await until(3_700 + 3_400)
        assert len(world.fired()) == 6
        await until(4_201 + 3_600)
        assert world.fired()[6:] == [4_200]


async def test_a_clock_set_back_while_the_operator_was_down_fires_nothing_twice(world: World) -> None:
    async with Operator(world, "first").running():
        world.create(everySeconds=600)
        await until(1_900)
    world.set_back = 3_600.0
    async with Operator(world, "second").running():
        await until(1_800 + 3_700)
    assert world.fired() == [600, 1_200, 1_800]


async def test_allow_starts_beside_what_is_active(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create()
        await until(181)
        assert world.phases() == {"60": "Pending", "120": "Pending", "180": "Pending"}


async def test_forbid_misses_occurrences_while_a_task_is_active(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(concurrencyPolicy="Forbid")
        await until(130)
        assert list(world.tasks()) == ["60"]
        assert world.status()["missed"] == 1
        world.finish("60")
        await until(181)
        assert list(world.tasks()) == ["60", "180"]


async def test_forbid_counts_a_task_that_the_watch_has_not_shown(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=1, concurrencyPolicy="Forbid")
        await until(0.5)
        operator.api.held = True
        await until(5.5)
        assert world.fired() == [1]
        operator.api.held = False
        operator.api.wake_watches()
        await until(8.2)
        world.finish("1")
        await until(10.5)
        assert world.fired() == [1, 9]


async def test_replace_stops_what_runs_and_ends_what_waits(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(concurrencyPolicy="Replace")
        await until(61)
        world.hold("60")
        await until(121)
        assert world.tasks()["60"]["status"]["stopRequest"]["reason"] == "Cancelled"
        assert world.phases()["120"] == "Pending"
        world.finish("60", "Cancelled")
        await until(181)
        status = world.tasks()["120"]["status"]
        assert (status["phase"], status["reason"]) == ("Cancelled", "Replaced")
        assert f"s-{EPOCH + 180:.0f}" in status["message"]
        assert world.phases()["180"] == "Pending"


async def test_replace_goes_on_after_a_restart(world: World) -> None:
    async with Operator(world, "first").running() as first:
        world.create(concurrencyPolicy="Replace")
        await until(61)
        world.hold("60")
        await until(100)
        first.faults = lambda call: Fault(delay=10**6) if call.verb == "patch" and call.resource is TASKS else None
        await until(121)
    assert "stopRequest" not in world.tasks()["60"]["status"]
    async with Operator(world, "second").running():
        await until(125)
    assert world.tasks()["60"]["status"]["stopRequest"]["reason"] == "Cancelled"


async def test_replace_tries_again_what_could_not_be_written(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(concurrencyPolicy="Replace")
        await until(100)
        broken = Fault(before=ServerError("etcd"))
        operator.faults = lambda call: broken if call.verb == "patch" and call.resource is TASKS else None
        await until(122)
        operator.faults = lambda call: None
        await until(130)
        assert world.phases() == {"60": "Cancelled", "120": "Pending"}


async def test_replace_leaves_alone_what_a_person_runs_again(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(concurrencyPolicy="Replace", failedTasksHistoryLimit=9)
        await until(61)
        world.finish("60")
        await until(130)
        world.set("60", phase="Pending", runNumber=2, queuedTime=to_wire(world.now()), completionTime=None)
        await until(170)
        assert world.phases() == {"60": "Pending", "120": "Pending"}
        await until(181)
        assert world.phases() == {"60": "Cancelled", "120": "Cancelled", "180": "Pending"}


async def test_enqueued_occurrences_wait_for_each_other_also_over_a_restart(world: World) -> None:
    async with Operator(world, "first").running():
        world.create(concurrencyPolicy="Enqueue")
        await until(185)
        assert list(world.tasks()) == ["60"]
        assert [from_wire(each) - EPOCH for each in world.status()["waiting"]] == [120, 180]
    async with Operator(world, "second").running():
        await until(190)
        assert list(world.tasks()) == ["60"]
        world.finish("60")
        await until(191)
        assert world.fired() == [60, 120]
        await until(200)
        world.finish("120")
        await until(201)
        assert world.fired() == [60, 120, 180]
    assert world.status()["missed"] == 0


async def test_an_enqueued_occurrence_is_not_deleted_before_its_start_is_remembered(world: World) -> None:
    async with Operator(world, "first").running() as first:
        world.create(concurrencyPolicy="Enqueue", successfulTasksHistoryLimit=0)
        await until(130)
        first.faults = lambda call: Fault(before=Unanswered("no")) if told(call) else None
        world.finish("60")
        await until(131)
        world.finish("120")
        await until(150)
        assert list(world.tasks()) == ["120"]
    async with Operator(world, "second").running():
        await until(160)
    assert world.fired() == [60, 120]
    assert world.tasks() == {}


async def test_suspending_stops_firing_and_unsuspending_does_not_make_up_for_it(world: World) -> None:
    async with Operator(world, "first").running():
        world.create()
        await until(61)
        world.edit(suspend=True)
        await until(250)
        assert world.fired() == [60]
        assert world.ready() == ("True", "Suspended")
        assert "nextRunTime" not in world.status()
    world.edit(suspend=False)  # while nobody looks
    await until(270)
    async with Operator(world, "second").running():
        await until(299)
        assert world.fired() == [60]
        await until(301)
        assert world.fired() == [60, 300]


async def test_an_edit_of_the_times_looks_ahead_only(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=None, schedule="0 0 1 1 *", catchUp="All")
        await until(1_000)
        world.edit(schedule="* * * * *")
        await until(1_010)
        assert world.fired() == []
        await until(1_021)
        assert world.fired() == [1_020]


async def test_an_edit_of_the_template_does_not_lose_what_is_late(world: World) -> None:
    async with Operator(world, "first").running():
        world.create(everySeconds=600)
        await until(590)
    world.edit(taskTemplate={"spec": {"priority": 7}})
    await until(650)
    async with Operator(world, "second").running():
        await until(660)
    assert world.fired() == [600]
    assert world.tasks()["600"]["spec"]["priority"] == 7


async def test_after_an_outage_catch_up_decides(world: World) -> None:
    async with Operator(world, "first").running():
        for name, catch_up in (("n", "None"), ("l", "Latest"), ("a", "All")):
            world.create(name, catchUp=catch_up, catchUpLimit=2)
        await until(30)
    await until(280)
    async with Operator(world, "second").running():
        await until(290)
    counts = {name: (world.status(name)["runs"], world.status(name)["missed"]) for name in "nla"}
    assert counts == {"n": (0, 4), "l": (1, 3), "a": (2, 2)}


async def test_max_runs_and_end_time_end_a_schedule(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create("max", maxRuns=2)
        world.create("end", endTime=to_wire(EPOCH + 130))
        await until(300)
        assert sorted(world.fired()) == [60, 60, 120, 120]
        assert (world.ready("max"), world.ready("end")) == (("True", "Completed"), ("True", "Ended"))
        assert "nextRunTime" not in world.status("max")


async def test_a_person_runs_a_schedule_now(world: World) -> None:
    async with Operator(world, "first").running() as first:
        world.create(suspend=True, concurrencyPolicy="Forbid")
        await until(5)
        first.faults = lambda call: Fault(delay_answer=10**6) if created(call) else None
        world.annotate("monday")
        await until(6)
    async with Operator(world, "second").running():
        await until(10)
        (name,) = world.tasks()
        assert world.status()["observedRunNow"] == "monday"
        assert world.status()["active"] == [name]
        await until(100)
        assert len(world.tasks()) == 1
        world.annotate("tuesday")
        await until(101)
        assert len(world.tasks()) == 2
        assert world.status()["runs"] == 0


async def test_a_long_value_is_remembered_by_its_digest(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create()
        world.annotate("x" * 5_000)
        await until(10)
        assert len(world.tasks()) == 1
        assert len(world.status()["observedRunNow"]) == 64


async def test_a_task_that_a_person_created_counts(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(concurrencyPolicy="Forbid", successfulTasksHistoryLimit=1)
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": "mine", "labels": {names.SCHEDULE_LABEL: "s"}, "annotations": {}},
            "spec": {"run": {"command": ["true"]}},
        }
        world.server.create(TASKS, NAMESPACE, body)
        await until(70)
        assert list(world.tasks()) == ["mine"]
        assert world.status()["active"] == ["mine"]
        world.finish("mine")
        await until(121)
        world.finish("120")
        await until(130)
        assert list(world.tasks()) == ["120"]


async def test_the_oldest_finished_tasks_beyond_the_limits_are_deleted(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(successfulTasksHistoryLimit=2, failedTasksHistoryLimit=1)
        ends = {60: "Succeeded", 120: "Failed", 180: "Cancelled", 240: "Succeeded", 300: "Succeeded"}
        for at, phase in ends.items():
            await until(at + 1)
            world.finish(str(at), phase)
        await until(350)
        assert sorted(world.tasks()) == ["180", "240", "300"]


async def test_a_finished_task_that_another_one_needs_is_kept(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(successfulTasksHistoryLimit=0)
        await until(61)
        name = world.tasks()["60"]["metadata"]["name"]
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": "child", "annotations": {}},
            "spec": {"run": {"command": ["true"]}, "dependsOn": [{"name": name}]},
        }
        world.server.create(TASKS, NAMESPACE, body)
        await until(62)
        world.finish("60")
        await until(90)
        assert sorted(world.tasks()) == ["60", "child"]
        world.finish("child")
        await until(130)
        assert "60" not in world.tasks()


async def test_a_bad_expression_is_a_condition_with_its_place(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(schedule="0 25 * * *")
        await until(1)
        assert world.ready() == ("False", "InvalidSchedule")
        assert world.message() == "spec.schedule '0 25 * * *': column 3, hour: '25' is not one of 0-23"
        world.edit(schedule="0 5 * * *", timeZone="Europe/Berln")
        await until(2)
        assert "spec.timeZone: there is no time zone 'Europe/Berln'" in world.message()
        world.edit(timeZone=None, schedules=["@daily", "@dayly"])
        await until(3)
        assert world.message().startswith("spec.schedules[1] '@dayly': column 1: ")
        world.edit(schedules=None, endTime="9999-01-01T00:00:00Z")
        await until(4)
        assert world.message() == "spec.endTime: only times from 1970 to 2286 can be used"
        world.edit(endTime=None, catchUp="Sometimes")
        await until(5)
        assert world.message() == "'Sometimes' is not a valid CatchUp"
        await until(130)
        assert world.fired() == []
        world.annotate("all the same")
        await until(131)
        assert len(world.tasks()) == 1
        world.edit(catchUp="None")
        await until(181)
        assert world.ready() == ("True", "Scheduled")
        assert world.fired() == [180]


def refusing(error: Exception) -> Callable[[Resource, str | None, Object | None, Object], None]:
    def admit(resource: Resource, subresource: str | None, before: Object | None, after: Object) -> None:
        if resource is TASKS and before is None and after["spec"]["run"] == {"command": ["bad"]}:
            raise error

    return admit


async def test_a_refused_task_is_a_condition_at_once_and_not_a_loop(world: World, operator: Operator) -> None:
    async with operator.running():
        world.server.admission.append(refusing(Unprocessable("spec.run: too bad")))
        world.create(taskTemplate={"spec": {"run": {"command": ["bad"]}}})
        await until(2)
        assert world.ready() == ("False", "TaskRefused")
        assert world.message() == "the API server refused the Task: spec.run: too bad"
        await until(610)
        assert len([call for call in operator.api.calls if created(call)]) == 1 + 10
        assert (world.status()["missed"], world.status()["runs"]) == (10, 0)
        world.edit(taskTemplate={"spec": {"run": {"command": ["good"]}}})
        await until(612)
        assert world.ready() == ("True", "Scheduled")
        await until(661)
        assert world.fired() == [660]


async def test_a_refusal_is_still_told_after_a_restart(world: World) -> None:
    world.server.admission.append(refusing(Unprocessable("spec.run: too bad")))
    world.create(taskTemplate={"spec": {"run": {"command": ["bad"]}}})
    for name in ("first", "second"):
        async with Operator(world, name).running():
            await asyncio.sleep(7)
            assert world.ready() == ("False", "TaskRefused")
    assert world.writes() == 1


async def test_a_quota_is_waited_for(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=600)
        await until(500)
        full = Fault(before=Forbidden("exceeded quota: tasks"))
        operator.faults = lambda call: full if created(call) else None
        await until(700)
        assert world.ready() == ("False", "TaskRefused")
        assert len([call for call in operator.api.calls if created(call)]) <= 4
        operator.faults = lambda call: None
        await until(790)
        assert world.fired() == [600]
        assert world.ready() == ("True", "Scheduled")


@pytest.mark.parametrize("fault", [Fault(before=ServerError("etcd")), lost_answer()], ids=["refused", "lost"])
async def test_what_the_server_could_not_do_is_tried_again(world: World, operator: Operator, fault: Fault) -> None:
    async with operator.running():
        world.create()
        await until(50)
        operator.faults = lambda call: fault if created(call) or told(call) else None
        await until(62)
        operator.faults = lambda call: None
        await until(80)
        assert world.fired() == [60]
        assert world.status()["runs"] == 1


async def test_nothing_is_written_without_leadership(world: World, operator: Operator) -> None:
    async with operator.running():
        operator.leads = False
        world.create()
        await until(70)
        assert world.fired() == []
        assert world.writes() == 0
        operator.leads = True
        await until(80)
        assert world.fired() == [60]


async def test_a_deleted_schedule_is_forgotten_and_its_successor_begins_anew(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create()
        await until(61)
        world.server.delete(TASKSCHEDULES, NAMESPACE, "s")
        await until(130)
        assert world.fired() == [60]
        world.create()
        await until(185)
        assert world.fired() == [60]
        await until(191)
        assert world.fired() == [60, 190]


async def test_jitter_delays_and_next_run_time_tells(world: World, operator: Operator) -> None:
    async with operator.running():
        world.create(everySeconds=600, jitterSeconds=300)
        await until(1)
        due = from_wire(world.status()["nextRunTime"]) - EPOCH
        assert 600 <= due <= 900
        await until(due - 1)
        assert world.fired() == []
        await until(due + 1)
        assert world.fired() == [600]


async def test_a_thousand_schedules_fire_at_once(world: World, operator: Operator) -> None:
    async with operator.running():
        for number in range(1_000):
            world.create(f"s-{number}")
        await until(65)
        assert world.fired() == [60] * 1_000
