"""The example image: what its Dockerfile copies is there, and its functions do as Tasks what they do in a test."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
import yaml
from tests.unit.runner_process import Agent, Factory, python, runners

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "worker-image"
CODE = (EXAMPLE / "steps.py").read_text()
TASK = yaml.safe_load((EXAMPLE / "task.yaml").read_text())
POOL = yaml.safe_load((EXAMPLE / "pool.yaml").read_text())


@pytest_asyncio.fixture
async def make_runner(tmp_path: Path) -> AsyncIterator[Factory]:
    async with runners(tmp_path, {"steps": CODE}) as make:
        yield make


@pytest_asyncio.fixture
async def agent(make_runner: Factory) -> Agent:
    return await (await make_runner(TASKMASTER_PRELOAD=",".join(POOL["spec"]["preload"]))).connect()


def test_the_dockerfile_copies_what_the_task_calls() -> None:
    text = (EXAMPLE / "Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (\S+) /app/$", text, re.MULTILINE)
    assert (EXAMPLE / copied).exists()
    assert TASK["spec"]["run"]["python"]["callable"].startswith(copied.removesuffix(".py") + ":")
    assert f"-t {POOL['spec']['template']['image']} " in text


def test_the_functions_can_be_tested_without_a_cluster() -> None:
    names: dict[str, object] = {"__name__": "steps"}
    exec(CODE, names)
    sum_of_squares = names["sum_of_squares"]
    assert callable(sum_of_squares)
    assert sum_of_squares(3, seconds_per_step=0) == {"total": 14}


async def test_an_attempt_goes_on_from_the_checkpoint_of_the_one_before(agent: Agent) -> None:
    run = {"python": {**TASK["spec"]["run"]["python"], "args": {"count": 100, "seconds_per_step": 0}}}
    attempt_id = agent.start(run, checkpoint={"steps": 98, "total": 318549})
    for sequence in (1, 2):
        await agent.news(lambda: len(agent.told("checkpoint", attempt_id)) == sequence)  # noqa: B023 - awaited here
        agent.send({"type": "checkpointed", "id": attempt_id, "sequence": sequence})
    frame = await agent.exit(attempt_id)
    assert (frame["result"], frame["tail"]) == ({"total": 338350}, "all 100 steps are done\n")
    assert [one["data"]["steps"] for one in agent.told("checkpoint", attempt_id)] == [99, 100]
    assert agent.told("progress", attempt_id)[-1]["progress"]["current"] == 100


async def test_the_other_ends_of_the_example(agent: Agent) -> None:
    assert (await agent.run(python("steps:fetch_all", names=["a", "bc"])))["result"] == {"a": 1, "bc": 2}
    later = await agent.run(python("steps:fetch_all", names=[], ready=False))
    assert later["error"]["retryAfterSeconds"] == 60
    assert (await agent.run(python("steps:sum_of_squares", count=-1)))["error"]["final"] is True
