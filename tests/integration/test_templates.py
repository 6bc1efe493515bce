"""Tasks that are made of a template, by a real coordinator and a real worker."""

import sys
from collections.abc import Callable

from tests.integration.harness import Object, World

from taskmaster.api import names
from taskmaster.kube.api import MergePatch
from taskmaster.kube.resource import TASKS, TASKTEMPLATES, Resource

ECHO = "import sys; print(*sys.argv[1:])"
GREET: Object = {
    "parameters": {"properties": {"who": {"type": "string"}, "times": {"type": "integer", "default": 1}}},
    "task": {"run": {"command": [sys.executable, "-c", ECHO, "$(args.who)", "$(args.times)"]}},
}


async def create(world: World, resource: Resource, name: str, spec: Object) -> Object:
    body = {"apiVersion": names.API_VERSION, "kind": resource.kind, "metadata": {"name": name}, "spec": spec}
    return await world.api.create(resource, world.namespace, body)


async def edit(world: World, spec: Object) -> None:
    await world.api.patch(TASKTEMPLATES, world.namespace, "greet", MergePatch({"spec": spec}))


def is_judged(reason: str, generation: int = 1) -> Callable[[Object], bool]:
    def wanted(obj: Object) -> bool:
        conditions = obj["status"].get("conditions", ())
        return obj["status"]["observedGeneration"] == generation and [each["reason"] for each in conditions] == [reason]

    return wanted


async def test_a_task_runs_what_its_template_and_arguments_come_to_in_all_its_runs(world: World) -> None:
    await world.start_coordinator()
    await world.start_worker("w-1")
    await create(world, TASKTEMPLATES, "greet", GREET)
    await world.until("greet", is_judged("Valid"), resource=TASKTEMPLATES)
    before = await world.writes()
    await create(world, TASKS, "it", {"templateRef": {"name": "greet"}, "args": {"who": "Ada $(date)"}})
    status = (await world.finished("it"))["status"]
    assert (status["phase"], status["logTail"]) == ("Succeeded", "Ada $(date) 1\n"), status
    assert status["resolvedRun"]["run"]["command"][-2:] == ["Ada $(date)", "1"]
    after = await world.writes()
    assert sum(after.values()) - sum(before.values()) == 3  # create, assign, finish: a template costs no write
    await edit(world, {"task": {"run": {"command": ["false"]}}})
    await world.until("greet", is_judged("Valid", 2), resource=TASKTEMPLATES)
    await world.edit("it", retryRequest="1")
    again = await world.until("it", lambda obj: obj["status"]["runNumber"] == 2 and "completionTime" in obj["status"])
    assert again["status"]["resolvedRun"] == status["resolvedRun"]
    assert again["status"]["logTail"] == status["logTail"]


async def test_a_task_waits_for_its_template_and_for_arguments_that_fit(world: World) -> None:
    await world.start_coordinator()
    await world.start_worker("w-1")
    await create(world, TASKS, "it", {"templateRef": {"name": "greet"}, "args": {"who": 5}})
    await world.until("it", lambda obj: obj["status"].get("reason") == "TemplateNotFound")
    await create(world, TASKTEMPLATES, "greet", {**GREET, "parameters": {"required": "who"}})
    await world.until("greet", is_judged("InvalidSchema"), resource=TASKTEMPLATES)
    waiting = await world.until("it", lambda obj: obj["status"].get("reason") == "InvalidSpec")
    assert 'parameters.required: "who" is not an array' in waiting["status"]["message"]
    await edit(world, {"parameters": GREET["parameters"] | {"required": None}})
    await world.until("greet", is_judged("Valid", 2), resource=TASKTEMPLATES)
    await world.edit("it", args={"who": "Ada"})
    assert (await world.finished("it"))["status"]["logTail"] == "Ada 1\n"
