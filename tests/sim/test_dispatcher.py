"""The dispatcher against the in-memory server: one write per object in flight, every outcome told exactly once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
from tests.sim.memory_api import Call, Fault, MemoryApi, lost_answer
from tests.sim.memory_server import MemoryServer

from taskmaster.kube.api import JsonPatch, MergePatch, Patch
from taskmaster.kube.dispatcher import Dispatcher, Outcome, Write
from taskmaster.kube.errors import Conflict, NotSent, ServerError, TooManyRequests, Unanswered, Unprocessable
from taskmaster.kube.resource import CONFIGMAPS

pytestmark = pytest.mark.looptime


class Rig:
    def __init__(self, *, concurrency: int = 4, objects: int = 20, may_send: Callable[[], bool] = lambda: True) -> None:
        self.server = MemoryServer()
        self.api = MemoryApi(self.server, latency=1.0)
        self.clock = asyncio.get_running_loop().time
        self.dispatcher = Dispatcher(
            self.api, concurrency=concurrency, may_send=may_send, clock=self.clock, random=Random(1)
        )
        self.outcomes: list[Outcome] = []
        for number in range(objects):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}, "data": {"value": ""}}
            self.server.create(CONFIGMAPS, "n", body)

    def write(self, name: str, value: str = "1", *, patch: Patch | None = None) -> Write:
        patch = patch or MergePatch({"data": {"value": value}})
        return Write(key=name, resource=CONFIGMAPS, namespace="n", name=name, patch=patch, done=self.outcomes.append)

    def submit(self, name: str, value: str = "1") -> Write:
        write = self.write(name, value)
        self.dispatcher.submit(write)
        return write

    def value(self, name: str) -> str:
        return str(self.server.read(CONFIGMAPS, "n", name)["data"]["value"])

    @property
    def sent(self) -> list[str]:
        return [call.name for call in self.api.calls]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.dispatcher.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_write_is_sent_and_its_outcome_told(rig: Rig) -> None:
    async with rig.running():
        write = rig.submit("c0", "new")
        assert await rig.dispatcher.drain(10)
    assert rig.value("c0") == "new"
    (outcome,) = rig.outcomes
    assert outcome.write is write
    assert outcome.error is None
    assert not outcome.superseded
    assert outcome.object is not None
    assert outcome.object["data"]["value"] == "new"


async def test_no_more_than_the_concurrency_are_in_flight_and_order_is_kept() -> None:
    rig = Rig(concurrency=4)
    async with rig.running():
        for number in range(12):
            rig.submit(f"c{number}")
        most = 0
        for _ in range(40):
            await asyncio.sleep(0.1)
            most = max(most, rig.dispatcher.in_flight)
        assert most == 4
        assert rig.sent == [f"c{number}" for number in range(12)]
        assert len(rig.outcomes) == 12


async def test_newer_intent_replaces_the_waiting_one_and_takes_its_place(rig: Rig) -> None:
    first, second = rig.submit("c0", "1"), rig.submit("c1", "1")
    third = rig.submit("c0", "2")
    assert [(outcome.write, outcome.superseded) for outcome in rig.outcomes] == [(first, True)]
    async with rig.running():
        await rig.dispatcher.drain(10)
    assert rig.value("c0") == "2"
    assert rig.sent == ["c0", "c1"]
    assert [outcome.write for outcome in rig.outcomes[1:]] == [third, second]


async def test_one_write_per_object_is_in_flight(rig: Rig) -> None:
    async with rig.running():
        first = rig.submit("c0", "1")
        await asyncio.sleep(0.2)
        second = rig.submit("c0", "2")
        third = rig.submit("c0", "3")
        await asyncio.sleep(0.2)
        assert (rig.dispatcher.in_flight, rig.dispatcher.waiting) == (1, 1)
        await rig.dispatcher.drain(10)
    assert rig.value("c0") == "3"
    assert [(outcome.write, outcome.superseded) for outcome in rig.outcomes] == [
        (second, True),
        (first, False),
        (third, False),
    ]


async def test_outcome_may_submit_the_next_write(rig: Rig) -> None:
    def again(outcome: Outcome) -> None:
        rig.submit("c0", "second")

    async with rig.running():
        rig.dispatcher.submit(
            Write(key="c0", resource=CONFIGMAPS, namespace="n", name="c0", patch=MergePatch({}), done=again)
        )
        assert await rig.dispatcher.drain(10)
    assert rig.value("c0") == "second"


async def test_delete_carries_its_preconditions(rig: Rig) -> None:
    uid = rig.server.read(CONFIGMAPS, "n", "c0")["metadata"]["uid"]

    def delete(name: str, uid: str) -> None:
        rig.dispatcher.submit(
            Write(
                key=name, resource=CONFIGMAPS, namespace="n", name=name, patch=None, uid=uid, done=rig.outcomes.append
            )
        )

    async with rig.running():
        delete("c0", uid)
        delete("c1", uid)
        await rig.dispatcher.drain(10)
    errors = {outcome.write.name: type(outcome.error) for outcome in rig.outcomes}
    assert errors == {"c0": type(None), "c1": Conflict}
    assert rig.server.select(CONFIGMAPS)[0]["metadata"]["name"] == "c1"


@pytest.mark.parametrize(
    ("fault", "error", "applied"),
    [
        pytest.param(Fault(before=ServerError("boom", status=503)), ServerError, False, id="5xx"),
        pytest.param(Fault(before=Unanswered("refused")), Unanswered, False, id="refused"),
        pytest.param(lost_answer(), Unanswered, True, id="lost answer"),
        pytest.param(Fault(before=ZeroDivisionError()), Unanswered, False, id="bug"),
    ],
)
async def test_what_may_have_been_applied_is_reported_not_repeated(
    rig: Rig, fault: Fault, error: type[Exception], applied: bool
) -> None:
    rig.api.faults = lambda call: fault
    async with rig.running():
        rig.submit("c0")
        await rig.dispatcher.drain(100)
    assert len(rig.api.calls) == 1
    assert [type(outcome.error) for outcome in rig.outcomes] == [error]
    assert (rig.value("c0") == "1") is applied


async def test_failed_test_operation_is_reported(rig: Rig) -> None:
    async with rig.running():
        rig.dispatcher.submit(
            rig.write("c0", patch=JsonPatch([{"op": "test", "path": "/data/value", "value": "other"}]))
        )
        await rig.dispatcher.drain(10)
    assert [type(outcome.error) for outcome in rig.outcomes] == [Unprocessable]


async def test_busy_server_gets_the_same_write_again_after_the_pause_it_asked_for(rig: Rig) -> None:
    times: list[float] = []

    def busy(call: Call) -> Fault | None:
        times.append(rig.clock())
        return Fault(before=TooManyRequests("slow down", retry_after=20.0)) if len(times) == 1 else None

    rig.api.faults = busy
    async with rig.running():
        rig.submit("c0")
        await asyncio.sleep(1)
        rig.submit("c1")  # the pause is the server's, so it holds for others, too
        assert rig.dispatcher.paused_until >= 20
        assert await rig.dispatcher.drain(60)
    assert rig.sent == ["c0", "c0", "c1"]
    assert times[1] - times[0] >= 20
    assert [outcome.error for outcome in rig.outcomes] == [None, None]


async def test_newer_intent_replaces_one_that_the_busy_server_refused(rig: Rig) -> None:
    rig.api.faults = lambda call: Fault(before=TooManyRequests("x")) if call.number == 1 else None
    async with rig.running():
        first = rig.submit("c0", "1")
        await asyncio.sleep(0.1)
        second = rig.submit("c0", "2")
        await rig.dispatcher.drain(60)
    assert [(outcome.write, outcome.superseded) for outcome in rig.outcomes] == [(first, True), (second, False)]
    assert rig.value("c0") == "2"


async def test_concurrency_halves_once_per_burst_of_refusals_and_grows_back() -> None:
    rig = Rig(concurrency=16, objects=200)
    rig.api.faults = lambda call: Fault(before=TooManyRequests("x")) if call.number <= 16 else None
    async with rig.running():
        for number in range(200):
            rig.submit(f"c{number}")
        await asyncio.sleep(0.6)
        assert rig.dispatcher.limit == 8
        assert await rig.dispatcher.drain(600)
        assert rig.dispatcher.limit == 16
    assert len(rig.outcomes) == 200
    assert len(rig.api.calls) == 216


async def test_server_that_stays_busy_is_asked_less_and_less() -> None:
    rig = Rig(concurrency=16)
    rig.api.faults = lambda call: Fault(before=TooManyRequests("x"))
    async with rig.running():
        for number in range(20):
            rig.submit(f"c{number}")
        await asyncio.sleep(600)
        assert len(rig.api.calls) < 80
        assert rig.dispatcher.limit == 1
        assert rig.outcomes == []
        assert not await rig.dispatcher.drain(1)
    assert [type(outcome.error) for outcome in rig.outcomes] == [NotSent] * 20


async def test_nothing_is_sent_without_leadership() -> None:
    leading = True
    rig = Rig(concurrency=1, may_send=lambda: leading)
    async with rig.running():
        for number in range(3):
            rig.submit(f"c{number}")
        await asyncio.sleep(0.5)
        leading = False  # the first is in flight, the others wait
        await rig.dispatcher.drain(10)
    assert rig.sent == ["c0"]
    assert [outcome.abandoned for outcome in rig.outcomes] == [False, True, True]


async def test_cancelling_tells_every_outcome(rig: Rig) -> None:
    async with rig.running():
        for number in range(6):
            rig.submit(f"c{number}")
        await asyncio.sleep(0.5)
        rig.submit("c0", "behind")
    assert sorted((outcome.write.name, type(outcome.error).__name__) for outcome in rig.outcomes) == [
        ("c0", "NotSent"),
        ("c0", "Unanswered"),
        ("c1", "Unanswered"),
        ("c2", "Unanswered"),
        ("c3", "Unanswered"),
        ("c4", "NotSent"),
        ("c5", "NotSent"),
    ]
    rig.submit("c9")
    assert rig.outcomes[-1].abandoned


async def test_cancelling_before_the_first_step_tells_every_outcome(rig: Rig) -> None:
    task = asyncio.create_task(rig.dispatcher.run())
    rig.submit("c0")
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert [outcome.error is not None for outcome in rig.outcomes] == [True]


async def test_failing_receiver_does_not_stop_the_others(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def fail(outcome: Outcome) -> None:
        raise ZeroDivisionError

    async with rig.running():
        rig.dispatcher.submit(
            Write(key="c0", resource=CONFIGMAPS, namespace="n", name="c0", patch=MergePatch({}), done=fail)
        )
        rig.submit("c1")
        assert await rig.dispatcher.drain(10)
    assert rig.value("c1") == "1"
    assert "outcome failed" in caplog.text


async def test_drain_of_nothing_is_at_once(rig: Rig) -> None:
    assert await rig.dispatcher.drain(0.1)


@pytest.mark.parametrize("seed", range(20))
async def test_every_write_gets_one_outcome_and_the_last_intent_wins(seed: int) -> None:
    random = Random(seed)
    rig = Rig(concurrency=3, objects=5)
    rig.api.faults = lambda call: (
        Fault(before=TooManyRequests("x"), delay=random.random())
        if random.random() < 0.2
        else Fault(delay=random.random())
    )
    last: dict[str, str] = {}
    submitted = []
    async with rig.running():
        for number in range(200):
            name = f"c{random.randrange(5)}"
            last[name] = str(number)
            submitted.append(rig.submit(name, str(number)))
            await asyncio.sleep(random.choice([0, 0, 0.3, 2]))
        assert await rig.dispatcher.drain(1000)
    assert sorted(id(outcome.write) for outcome in rig.outcomes) == sorted(id(write) for write in submitted)
    assert {name: rig.value(name) for name in last} == last
