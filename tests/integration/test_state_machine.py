"""The table of `docs/state-machine.md`, tried on a real API server: every write of the protocol in every phase.

Each write is made by who makes it in a cluster: a worker's with a token bound to its pod.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.harness import Object, World
from tests.integration.journey import assigned, brought_to, ended_waiting, given_back
from tests.protocol import EVENTS, RETRY_REQUEST, Event, last_seen
from tests.unit.test_docs import rows

from taskmaster.api import names
from taskmaster.api.decode import task as decode_task
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import TERMINAL, Phase
from taskmaster.kube.client import Client
from taskmaster.kube.errors import Conflict, Unprocessable
from taskmaster.kube.resource import TASKS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "state-machine.md"
RULE, TEST, VERSION = "`rule`", "`test`", "`version`"


def documented() -> dict[tuple[str, str], dict[Phase, str]]:
    """Return what the document says of each write, by its label and by the phases it is decided on."""
    table = rows("events", DOCUMENT.read_text())
    return {(row[0], row[1]): dict(zip(Phase, row[2:], strict=True)) for row in table}


@dataclass
class Scene:
    world: World
    worker: Worker
    agent: Client

    async def consequence(self, event: Event, seen: Phase, obj: Object) -> str:
        """Make a write that was decided on one phase to a Task in another; what is refused must change nothing."""
        name = obj["metadata"]["name"]
        if event.write == "run_again" and obj["status"]["phase"] in TERMINAL:
            obj = await self.world.edit(name, retryRequest=RETRY_REQUEST)
        patch = event.make(last_seen(decode_task(obj), seen, self.worker), self.worker)
        api = self.agent if event.by_worker else self.world.api
        try:
            after = await api.patch(TASKS, self.world.namespace, name, patch, subresource="status")
        except (Conflict, Unprocessable) as refusal:
            assert await self.world.task(name) == obj
            if isinstance(refusal, Conflict):
                return VERSION
            # What the schema and its rules refuse comes with a cause per field; a failed `test` says only so much.
            return RULE if refusal.details.get("causes") else TEST
        return str(after["status"]["phase"])


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        pod = await world.create_worker_pod("mine")
        kubeconfig = await world.account_kubeconfig(world.namespace, names.WORKER_SERVICE_ACCOUNT, pod=pod)
        worker = Worker(world.namespace, "mine", pod["metadata"]["uid"], "default", "life-1", "node-1", 4, True)
        yield Scene(world, worker, await stack.enter_async_context(world.client(kubeconfig)))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.label}-{event.where}".replace("`", ""))
async def test_every_write_does_in_every_phase_what_the_document_says(scene: Scene, event: Event) -> None:
    found = {}
    for met in Phase:
        consequences = set()
        for number, seen in enumerate(event.seen):
            name = f"{met.lower()}-{number}"
            obj = await brought_to(scene.world, met, name=name, worker=scene.worker)
            consequences.add(await scene.consequence(event, seen, obj))
        (found[met],) = consequences
    assert found == documented()[event.label, event.where]


async def between_attempts(scene: Scene) -> Object:
    obj = await brought_to(scene.world, Phase.RUNNING, name="again", worker=scene.worker)
    return await given_back(scene.world, obj)


def ended_before_an_attempt(phase: Phase) -> Callable[[Scene], Awaitable[Object]]:
    async def build(scene: Scene) -> Object:
        obj = await brought_to(scene.world, Phase.PENDING, name=f"never-{phase.lower()}")
        return await ended_waiting(scene.world, obj, phase)

    return build


def ended_between_attempts(phase: Phase) -> Callable[[Scene], Awaitable[Object]]:
    async def build(scene: Scene) -> Object:
        obj = await brought_to(scene.world, Phase.ASSIGNED, name=f"between-{phase.lower()}", worker=scene.worker)
        return await ended_waiting(scene.world, await given_back(scene.world, obj), phase)

    return build


async def second_attempt(scene: Scene) -> Object:
    obj = await brought_to(scene.world, Phase.ASSIGNED, name="second", worker=scene.worker)
    return await assigned(scene.world, await given_back(scene.world, obj), worker=scene.worker)


OTHER_WAYS = (
    between_attempts,
    second_attempt,
    *(ended_before_an_attempt(phase) for phase in (Phase.FAILED, Phase.CANCELLED)),
    *(ended_between_attempts(phase) for phase in (Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED)),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.label}-{event.where}".replace("`", ""))
async def test_it_does_not_matter_how_a_task_came_into_its_phase(scene: Scene, event: Event) -> None:
    """But that a Task which ended while it waited has no holder, so that already a `test` says so."""
    for number, build in enumerate(OTHER_WAYS):
        seen = event.seen[number % len(event.seen)]
        obj = await build(scene)
        met = Phase(obj["status"]["phase"])
        expected = documented()[event.label, event.where][met]
        if expected == RULE and "assignment" not in obj["status"]:
            expected = TEST
        assert await scene.consequence(event, seen, obj) == expected, obj["metadata"]["name"]
