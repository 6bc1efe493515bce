"""The informer against the in-memory server: whatever happens to the connection, the store ends up as the server is."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from random import Random

import pytest
from tests.sim.memory_api import Call, Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.kube.api import MergePatch, WatchEvent
from taskmaster.kube.errors import ApiError, Gone, NotFound, ServerError, TooManyRequests, Unanswered
from taskmaster.kube.informer import Delta, Informer
from taskmaster.kube.observer import NullObserver
from taskmaster.kube.resource import CONFIGMAPS, Object

pytestmark = pytest.mark.looptime

Item = tuple[str, str]
"""Name and value of a ConfigMap's only key."""


class Relists(NullObserver):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def relist(self, resource_plural: str, reason: str) -> None:
        self.reasons.append(reason)


class Rig:
    """A server, an informer on its ConfigMaps, and what the informer said."""

    def __init__(self, *, page_size: int = 500) -> None:
        self.server = MemoryServer()
        self.api = MemoryApi(self.server)
        self.batches: list[list[Delta[Item]]] = []
        self.relists = Relists()
        self.informer = Informer(
            self.api,
            CONFIGMAPS,
            namespace="n",
            transform=read,
            on_deltas=self.take,
            page_size=page_size,
            clock=asyncio.get_running_loop().time,
            random=Random(1),
            observer=self.relists,
        )

    def take(self, deltas: Sequence[Delta[Item]]) -> None:
        self.batches.append(list(deltas))

    @property
    def deltas(self) -> list[Delta[Item]]:
        return [delta for batch in self.batches for delta in batch]

    def put(self, name: str, value: str = "1") -> None:
        if any(item["metadata"]["name"] == name for item in self.server.select(CONFIGMAPS, "n")):
            self.server.patch(CONFIGMAPS, "n", name, MergePatch({"data": {"value": value}}))
        else:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}
            self.server.create(CONFIGMAPS, "n", body)

    def remove(self, name: str) -> None:
        self.server.delete(CONFIGMAPS, "n", name)

    @property
    def names(self) -> list[Item]:
        return sorted(self.informer.store.values())

    def assert_in_step(self) -> None:
        there = {item["metadata"]["uid"]: read(item) for item in self.server.select(CONFIGMAPS, "n")}
        assert self.informer.store == there
        assert replay(self.deltas) == sorted(there.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.informer.run())
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


def read(item: Object) -> Item:
    return item["metadata"]["name"], item["data"]["value"]


def replay(deltas: Iterable[Delta[Item]]) -> list[Item]:
    """The state of a consumer that keys by name: each delta must start from what it had."""
    state: dict[str, Item] = {}
    for delta in deltas:
        if delta.old is not None:
            assert state.pop(delta.old[0]) == delta.old
        if delta.new is not None:
            assert delta.new[0] not in state
            state[delta.new[0]] = delta.new
    return sorted(state.values())


async def test_first_list_is_delivered_page_by_page_and_then_synced() -> None:
    rig = Rig(page_size=2)
    for name in "abcde":
        rig.put(name)
    synced_at: list[bool] = []

    def take(deltas: Sequence[Delta[Item]]) -> None:
        synced_at.append(rig.informer.synced.is_set())
        rig.take(deltas)

    rig.informer._on_deltas = take
    async with rig.running():
        await rig.informer.synced.wait()
        assert [len(batch) for batch in rig.batches] == [2, 2, 1]
        assert synced_at == [False] * 3
        rig.assert_in_step()


async def test_changes_arrive_as_deltas(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        rig.put("a")
        await asyncio.sleep(0.1)
        rig.put("a", "2")
        await asyncio.sleep(0.1)
        rig.remove("a")
        await asyncio.sleep(0.1)
    assert rig.batches == [
        [Delta(None, ("a", "1"))],
        [Delta(("a", "1"), ("a", "2"))],
        [Delta(("a", "2"), None)],
    ]


async def test_burst_is_one_batch(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(1)
        for number in range(1000):
            rig.put(f"c{number}")
        await asyncio.sleep(1)
        assert [len(batch) for batch in rig.batches] == [1000]


async def test_recreated_object_is_a_deletion_and_an_addition(rig: Rig) -> None:
    rig.put("a")
    async with rig.running():
        await rig.informer.synced.wait()
        rig.remove("a")
        rig.put("a", "2")
        await asyncio.sleep(0.1)
        assert rig.deltas[1:] == [Delta(("a", "1"), None), Delta(None, ("a", "2"))]


async def test_recreation_during_a_gap_is_seen_by_the_relist(rig: Rig) -> None:
    rig.put("a")
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(1)
        rig.api.held = True
        rig.remove("a")
        rig.put("a", "2")
        rig.server.compact()
        rig.api.held = False
        rig.api.break_watches(Gone("too old"))
        await asyncio.sleep(5)
        assert rig.deltas[1:] == [Delta(("a", "1"), None), Delta(None, ("a", "2"))]
        rig.assert_in_step()


@pytest.mark.parametrize("how", ["in the stream", "as a status"])
async def test_expired_version_leads_to_a_relist_with_the_deletions_of_the_gap(rig: Rig, how: str) -> None:
    for name in "abc":
        rig.put(name)
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(1)
        rig.api.held = True
        rig.remove("b")
        rig.put("c", "2")
        rig.put("d")
        rig.server.compact()
        rig.api.break_watches(Gone("too old") if how == "in the stream" else None)
        await asyncio.sleep(0)
        rig.api.held = False
        await asyncio.sleep(5)
        rig.assert_in_step()
        assert rig.names == [("a", "1"), ("c", "2"), ("d", "1")]
        assert rig.relists.reasons == ["Started", "Expired"]
        assert Delta(("a", "1"), None) not in rig.deltas
        assert rig.deltas.count(Delta(None, ("a", "1"))) == 1  # what did not change is not told again


async def test_old_entries_stay_while_the_server_is_away(rig: Rig) -> None:
    rig.put("a")
    async with rig.running():
        await rig.informer.synced.wait()
        rig.api.faults = lambda call: Fault(before=Unanswered("refused"))
        rig.api.break_watches(Gone("too old"))
        await asyncio.sleep(300)
        assert rig.names == [("a", "1")]
        assert rig.informer.last_error == "no answer Unanswered: refused"
        assert asyncio.get_running_loop().time() - rig.informer.last_heard >= 300
        rig.api.faults = lambda call: None
        rig.remove("a")
        await asyncio.sleep(31)
        assert rig.names == []
        assert rig.informer.last_error is None


async def test_broken_watch_goes_on_without_a_relist(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        for number in range(5):
            await asyncio.sleep(3)
            rig.api.break_watches(Unanswered("reset"))
            rig.put(f"c{number}")
        await asyncio.sleep(3)
        rig.assert_in_step()
        assert len(rig.names) == 5
        assert rig.relists.reasons == ["Started"]


async def test_watch_that_ends_in_time_is_opened_again_at_once(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(3000)
        rig.put("late")
        await asyncio.sleep(0.1)
        rig.assert_in_step()
        assert 5 <= sum(call.verb == "watch" for call in rig.api.calls) <= 11
        assert sum(call.verb == "list" for call in rig.api.calls) == 1


async def test_bookmarks_carry_the_version_over_quiet_times(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {}}
        rig.server.create(CONFIGMAPS, "elsewhere", other)
        await asyncio.sleep(70)
        rig.server.compact()
        rig.api.break_watches(Unanswered("reset"))
        await asyncio.sleep(5)
        assert rig.relists.reasons == ["Started"]


async def test_bookmarks_count_as_hearing(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        for _ in range(30):
            await asyncio.sleep(60)
            assert asyncio.get_running_loop().time() - rig.informer.last_heard <= 61


async def test_repeated_and_late_events_change_nothing(rig: Rig) -> None:
    seen: list[WatchEvent] = []

    def repeat(event: WatchEvent) -> Iterable[WatchEvent]:
        seen.append(event)
        return [event, *seen]

    rig.api.events = repeat
    async with rig.running():
        await rig.informer.synced.wait()
        rig.put("a")
        rig.put("a", "2")
        rig.put("b")
        rig.remove("a")  # followed by all of its past once more
        await asyncio.sleep(1)
        rig.assert_in_step()
        assert len(rig.deltas) == 4


async def test_restore_of_an_older_etcd_is_believed(rig: Rig) -> None:
    rig.put("a", "new")
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(1)
        old = MemoryServer(first_revision=100)
        rig.server, rig.api.server = old, old
        rig.put("a", "old")
        rig.api.break_watches(Gone("too large"))
        await asyncio.sleep(5)
        rig.put("b")
        await asyncio.sleep(5)
        assert rig.names == [("a", "old"), ("b", "1")]


async def test_object_that_cannot_be_read_is_skipped_and_the_others_live(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.put("good")
    rig.server.create(CONFIGMAPS, "n", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}})
    async with rig.running():
        with caplog.at_level(logging.WARNING):
            await rig.informer.synced.wait()
        assert rig.names == [("good", "1")]
        assert rig.informer.skipped == 1
        assert "object skipped" in caplog.text
        rig.put("bad", "mended")
        await asyncio.sleep(0.1)
        assert rig.names == [("bad", "mended"), ("good", "1")]


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(WatchEvent("ADDED", {}), id="no metadata"),
        pytest.param(WatchEvent("ADDED", {"metadata": {"name": "x", "resourceVersion": "9999"}}), id="no uid"),
        pytest.param(
            WatchEvent("ADDED", {"metadata": {"name": "x", "uid": "u", "resourceVersion": "x"}}), id="version"
        ),
        pytest.param(WatchEvent("ADDED", {"metadata": {"name": ["x"], "uid": "u", "resourceVersion": "1"}}), id="name"),
        pytest.param(WatchEvent("BOOKMARK", {"metadata": None}), id="bookmark"),
        pytest.param(
            WatchEvent("SHOUTED", {"metadata": {"name": "x", "uid": "u", "resourceVersion": "9999"}}), id="event type"
        ),
    ],
)
async def test_nonsense_in_the_stream_leads_to_a_relist(rig: Rig, nonsense: WatchEvent) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        rig.api.events = lambda event: (event, nonsense)
        rig.put("a")
        await asyncio.sleep(0.01)
        rig.api.events = lambda event: (event,)
        await asyncio.sleep(5)
        rig.put("b")
        await asyncio.sleep(1)
        rig.assert_in_step()
        assert rig.relists.reasons == ["Started", "Malformed"]


async def test_expired_continue_token_restarts_the_list_in_one_piece() -> None:
    rig = Rig(page_size=2)
    for name in "abcde":
        rig.put(name)

    def compact_before_second_page(call: Call) -> Fault | None:
        if call.verb == "list" and call.number == 2:
            rig.server.compact()
        return None

    rig.api.faults = compact_before_second_page
    async with rig.running():
        await rig.informer.synced.wait()
        rig.assert_in_step()
        assert sum(call.verb == "list" for call in rig.api.calls) == 3


@pytest.mark.parametrize(
    ("error", "relists"),
    [
        (Unanswered("reset"), False),
        (ServerError("boom", status=503), False),
        (TooManyRequests("slow down"), False),
        (NotFound("no such resource"), True),
        (Gone("too old"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ApiError) else "",
)
async def test_failing_watches_are_tried_at_a_growing_distance(rig: Rig, error: ApiError, relists: bool) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(2)
        rig.api.faults = lambda call: Fault(before=error) if call.verb == "watch" else None
        before = len(rig.api.calls)
        rig.api.break_watches(Unanswered("reset"))
        await asyncio.sleep(600)
        tries = [call.verb for call in rig.api.calls[before:]]
        assert 20 <= tries.count("watch") <= 50  # 0.1 s, doubling to 30 s
        assert (tries.count("list") > 0) is relists


async def test_server_that_ends_every_watch_at_once_is_not_hammered(rig: Rig) -> None:
    class Closing(MemoryApi):
        async def watch(self, *arguments: object, **keywords: object) -> AsyncIterator[WatchEvent]:
            self.calls.append(Call(0, "watch", CONFIGMAPS))
            return
            yield

    rig.informer._api = api = Closing(rig.server)
    async with rig.running():
        await asyncio.sleep(600)
        assert sum(call.verb == "watch" for call in api.calls) <= 50


async def test_retry_after_is_honoured(rig: Rig) -> None:
    times: list[float] = []

    def busy(call: Call) -> Fault:
        times.append(asyncio.get_running_loop().time())
        return Fault(before=TooManyRequests("slow down", retry_after=20.0))

    rig.api.faults = busy
    async with rig.running():
        await asyncio.sleep(100)
    assert all(20 <= later - earlier <= 31 for earlier, later in pairwise(times))
    assert len(times) >= 3


async def test_failure_of_the_consumer_is_not_swallowed(rig: Rig) -> None:
    def fail(deltas: Sequence[Delta[Item]]) -> None:
        raise ZeroDivisionError

    rig.informer._on_deltas = fail
    run = asyncio.create_task(rig.informer.run())
    await rig.informer.synced.wait()
    rig.put("a")
    with pytest.raises(ZeroDivisionError):
        await run
    await asyncio.sleep(0)
    assert rig.api.open_watches == 0


async def test_cancelling_closes_the_watch(rig: Rig) -> None:
    async with rig.running():
        await rig.informer.synced.wait()
        await asyncio.sleep(1)
        assert rig.api.open_watches == 1
    assert rig.api.open_watches == 0


@pytest.mark.parametrize("seed", range(20))
async def test_store_follows_the_server_through_any_weather(seed: int) -> None:
    random = Random(seed)
    rig = Rig(page_size=3)
    weather: list[Callable[[], None]] = [
        lambda: rig.api.break_watches(None),
        lambda: rig.api.break_watches(Unanswered("reset")),
        lambda: rig.api.break_watches(Gone("too old")),
        lambda: rig.api.break_watches(ServerError("boom")),
        rig.server.compact,
        lambda: setattr(rig.api, "held", not rig.api.held),
    ]

    def faults(call: Call) -> Fault | None:
        if random.random() > 0.2:
            return Fault(delay=random.random())
        return Fault(before=random.choice([Unanswered("x"), ServerError("x"), TooManyRequests("x"), NotFound("x")]))

    rig.api.faults = faults
    rig.api.events = lambda event: random.choice([(event,), (event,), (event, event)])
    async with rig.running():
        for _ in range(300):
            name = f"c{random.randrange(8)}"
            there = any(item["metadata"]["name"] == name for item in rig.server.select(CONFIGMAPS, "n"))
            if there and random.random() < 0.5:
                rig.remove(name)
            else:
                rig.put(name, str(random.random()))
            if random.random() < 0.1:
                random.choice(weather)()
            await asyncio.sleep(random.choice([0, 0, 0.1, 2]))
        rig.api.held = False
        rig.api.wake_watches()
        rig.api.faults = lambda call: None
        await asyncio.sleep(120)
        rig.assert_in_step()
