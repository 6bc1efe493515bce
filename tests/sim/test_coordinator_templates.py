"""TaskTemplates: the cache hears of them judged, and their status says whether they can be used, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
from tests.builders import NAMESPACE
from tests.sim.coordinator_rig import monotonic, wall_clock
from tests.sim.memory_api import Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.api import names
from taskmaster.api.models.tasktemplate import TaskTemplateStatus
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.templates import TemplateController, judged
from taskmaster.core.template import Template
from taskmaster.kube.api import MergePatch, Object
from taskmaster.kube.errors import Unanswered
from taskmaster.kube.informer import Informer
from taskmaster.kube.resource import TASKTEMPLATES

pytestmark = pytest.mark.looptime

ECHO: Object = {"run": {"command": ["echo", "$(args.x)"]}}
BAD: Object = {"properties": {"x": {"type": "int"}}}


class Rig:
    """A server, the controller, and what the cache was told."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.faults: Any = lambda call: None
        self.api = MemoryApi(self.server, faults=lambda call: self.faults(call))
        self.cache = Cache(wake=lambda: None, clock=wall_clock)
        self.leads = True
        self.controller = TemplateController(self.api, self.cache, may_write=lambda: self.leads, wall_clock=wall_clock)
        self.informer: Informer[Object] = Informer(
            self.api,
            TASKTEMPLATES,
            transform=lambda obj: obj,
            on_deltas=self.controller.on_deltas,
            clock=monotonic,
            random=Random(1),
        )

    def create(self, **spec: Any) -> Object:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "TaskTemplate",
            "metadata": {"name": "t"},
            "spec": {"task": ECHO, **spec},
        }
        return self.server.create(TASKTEMPLATES, NAMESPACE, body)

    def edit(self, **spec: Any) -> None:
        self.server.patch(TASKTEMPLATES, NAMESPACE, "t", MergePatch({"spec": spec}))

    def status(self) -> Object:
        found: Object = self.server.read(TASKTEMPLATES, NAMESPACE, "t")["status"]
        return found

    def ready(self) -> tuple[str, str, str]:
        conditions = TaskTemplateStatus.model_validate(self.status()).conditions
        assert conditions is not None
        (condition,) = conditions
        assert condition.type == "Ready"
        return condition.status, condition.reason, condition.message

    def known(self) -> Template | None:
        return self.cache.tenants[NAMESPACE].templates.get("t")

    def writes(self) -> int:
        return self.server.writes["patch", "tasktemplates/status"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        parts = [asyncio.create_task(each) for each in (self.controller.run(), self.informer.run())]
        try:
            await asyncio.sleep(0.1)
            yield
            for part in parts:
                assert not part.done(), part.exception()
        finally:
            for part in parts:
                part.cancel()
                with suppress(asyncio.CancelledError):
                    await part


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_a_template_is_known_and_says_that_it_is_ready(rig: Rig) -> None:
    created = rig.create()
    async with rig.running():
        assert rig.known() == judged(created)[0]
        assert rig.ready() == ("True", "Valid", "Tasks can be made of it")
        assert rig.status()["observedGeneration"] == 1
        await asyncio.sleep(60)
    assert rig.writes() == 1


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"parameters": BAD}, "InvalidSchema", 'spec.parameters.properties.x.type: "int" is none of "array"'),
        (
            {"task": {"run": {"script": {"source": "echo $(args.x)"}}}},
            "InvalidTemplate",
            "spec.task.run.script.source: $(args.x) is not substituted in a script",
        ),
        (
            {"task": {**ECHO, "retry": {"backoff": {"jitter": "Fibonacci"}}}},
            "InvalidTemplate",
            "this version of Taskmaster cannot read it",
        ),
    ],
)
async def test_what_cannot_be_used_says_why_and_where(rig: Rig, spec: Object, reason: str, message: str) -> None:
    rig.create(**spec)
    async with rig.running():
        status, found, text = rig.ready()
        assert (status, found, text.startswith(message)) == ("False", reason, True), text
        known = rig.known()
        assert known is not None
        assert known.problem
        assert text.endswith(known.problem)


async def test_an_edit_is_judged_and_answered_at_once(rig: Rig) -> None:
    rig.create()
    async with rig.running():
        await asyncio.sleep(5)
        since = rig.status()["conditions"][0]["lastTransitionTime"]
        rig.edit(parameters={"properties": {"x": {"default": "hello"}}})
        await asyncio.sleep(0.1)
        assert rig.status()["observedGeneration"] == 2
        assert rig.status()["conditions"][0]["lastTransitionTime"] == since
        rig.edit(parameters={**BAD, "$comment": "no"})
        await asyncio.sleep(0.1)
        assert rig.ready()[:2] == ("False", "InvalidSchema")
        assert rig.status()["conditions"][0]["lastTransitionTime"] > since
        assert rig.writes() == 3


async def test_a_template_that_is_deleted_is_forgotten(rig: Rig) -> None:
    rig.create()
    async with rig.running():
        rig.server.delete(TASKTEMPLATES, NAMESPACE, "t")
        await asyncio.sleep(0.1)
        assert rig.known() is None
        await asyncio.sleep(60)
    assert rig.writes() == 1


async def test_a_status_that_could_not_be_written_is_tried_again(rig: Rig) -> None:
    rig.faults = lambda call: Fault(before=Unanswered("reset")) if call.verb == "patch" else None
    rig.create(parameters=BAD)
    async with rig.running():
        assert rig.writes() == 0
        known = rig.known()
        assert known is not None
        assert known.problem
        rig.faults = lambda call: None
        await asyncio.sleep(5)
        assert rig.ready()[:2] == ("False", "InvalidSchema")


async def test_who_does_not_lead_writes_nothing(rig: Rig) -> None:
    rig.leads = False
    rig.create()
    async with rig.running():
        await asyncio.sleep(60)
        assert rig.writes() == 0
        assert rig.known() is not None
        rig.leads = True
        await asyncio.sleep(5)
        assert rig.writes() == 1
