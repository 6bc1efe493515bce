"""Informer, dispatcher and election on a real API server that comes and goes, hence one of their own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from localcluster.controlplane import ControlPlane
from taskmaster.kube.api import JsonPatch, MergePatch
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import Credentials, load_credentials
from taskmaster.kube.dispatcher import Dispatcher, Outcome, Write
from taskmaster.kube.election import LeaderElector, Lost
from taskmaster.kube.errors import Forbidden, Unanswered, Unauthorized, Unprocessable
from taskmaster.kube.informer import Delta, Informer
from taskmaster.kube.resource import CONFIGMAPS, LEASES, Object

NAMESPACE = "default"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("outage"), controller_manager=False) as plane:
        yield plane


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(load_credentials(plane.kubeconfig), component="tests") as client:
        yield client


def config_map(name: str, value: str = "1") -> Object:
    labels = {"test": "outage"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": {"value": value},
    }


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], limit: float) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit, "it did not come to pass"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_informer_follows_through_a_restart_of_the_server(plane: ControlPlane, client: Client) -> None:
    deltas: list[Delta[tuple[str, str]]] = []

    def take(batch: Sequence[Delta[tuple[str, str]]]) -> None:
        deltas.extend(batch)

    informer = Informer(
        client,
        CONFIGMAPS,
        namespace=NAMESPACE,
        label_selector="test=outage",
        transform=lambda item: (item["metadata"]["name"], item["data"]["value"]),
        on_deltas=take,
        page_size=2,
    )
    for number in range(5):
        await client.create(CONFIGMAPS, NAMESPACE, config_map(f"i{number}"))
    async with running(informer.run()):
        await asyncio.wait_for(informer.synced.wait(), 10)
        assert len(informer.store) == 5
        await asyncio.to_thread(plane.stop_apiserver)
        with pytest.raises(Unanswered):
            await client.get(CONFIGMAPS, NAMESPACE, "i0")
        assert len(informer.store) == 5
        await asyncio.to_thread(plane.start_apiserver)
        await client.delete(CONFIGMAPS, NAMESPACE, "i0")
        await client.patch(CONFIGMAPS, NAMESPACE, "i1", MergePatch({"data": {"value": "2"}}))
        expected = sorted([("i1", "2"), ("i2", "1"), ("i3", "1"), ("i4", "1")])
        await until(lambda: sorted(informer.store.values()) == expected, 35)
        assert deltas.count(Delta(("i0", "1"), None)) == 1
        assert informer.last_error is None


async def test_dispatcher_sends_conditional_patches_at_once(client: Client) -> None:
    uids = {}
    for number in range(50):
        made = await client.create(CONFIGMAPS, NAMESPACE, config_map(f"d{number}"))
        uids[made["metadata"]["name"]] = made["metadata"]["uid"]
    outcomes: list[Outcome] = []
    dispatcher = Dispatcher(client, concurrency=16)
    async with running(dispatcher.run()):
        for name, uid in uids.items():
            expected = uid if name != "d7" else "another"
            ops = [
                {"op": "test", "path": "/metadata/uid", "value": expected},
                {"op": "replace", "path": "/data/value", "value": "2"},
            ]
            dispatcher.submit(
                Write(
                    key=uid,
                    resource=CONFIGMAPS,
                    namespace=NAMESPACE,
                    name=name,
                    patch=JsonPatch(ops),
                    done=outcomes.append,
                )
            )
        assert await dispatcher.drain(30)
    refused = [outcome.write.name for outcome in outcomes if isinstance(outcome.error, Unprocessable)]
    assert refused == ["d7"]
    assert sum(outcome.object is not None for outcome in outcomes) == 49


async def test_leadership_is_handed_over_within_two_seconds(plane: ControlPlane) -> None:
    credentials = load_credentials(plane.kubeconfig)
    async with Client(credentials, component="one") as first, Client(credentials, component="two") as second:
        one = LeaderElector(first, namespace=NAMESPACE, name="lead", identity="one")
        two = LeaderElector(second, namespace=NAMESPACE, name="lead", identity="two")
        await asyncio.wait_for(one.acquire(), 10)
        async with running(two.acquire()) as standby:
            async with running(one.hold()):
                await asyncio.sleep(3)
                assert one.is_leader
                assert not two.is_leader
            await one.release()
            assert not one.is_leader
            assert await until(lambda: two.is_leader, 10) < 2
            await standby
        stored = await second.get(LEASES, NAMESPACE, "lead")
        assert stored["spec"]["holderIdentity"] == "two"
        assert stored["spec"]["leaseTransitions"] == 1
        await second.patch(LEASES, NAMESPACE, "lead", MergePatch({"spec": {"holderIdentity": "usurper"}}))
        with pytest.raises(Lost, match="usurper"):
            await asyncio.wait_for(two.hold(), 10)


async def test_stranger_is_unauthorized_and_a_user_without_rights_forbidden(plane: ControlPlane) -> None:
    stranger = Credentials.from_token(plane.server, plane.ca_file, "no-such-token")
    async with Client(stranger, component="tests") as client:
        with pytest.raises(Unauthorized):
            await client.get(CONFIGMAPS, NAMESPACE, "x")
        with pytest.raises(Unauthorized):
            async for _ in client.watch(CONFIGMAPS, resource_version="0", timeout_seconds=5):
                pass
    async with Client(load_credentials(plane.kubeconfig_for("nobody")), component="tests") as client:
        with pytest.raises(Forbidden, match="nobody"):
            await client.get(CONFIGMAPS, NAMESPACE, "x")


async def test_wrong_authority_is_not_trusted(plane: ControlPlane) -> None:
    credentials = Credentials.from_token(plane.server, None, "secret")
    async with Client(credentials, component="tests") as client:
        with pytest.raises(Unanswered, match="certificate verify failed"):
            await client.get(CONFIGMAPS, NAMESPACE, "x")
