"""Tasks that break every rule: how they ended is reported right, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.unit.runner_process import SLEEP, Agent, Factory, RunnerProcess, alone, python, runners, shell

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEBIBYTE = 2**20
# Each process forks without end; half of the parents are gone at once, so that the tree changes while it is walked.
BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1]:
    open(sys.argv[1], "w").write(str(os.getpid()))
tokens, spare = os.pipe()  # where nothing else is the bound: a process costs a token, and returns it when it exits
os.set_blocking(tokens, False)
os.write(spare, b"x" * 100)
full = False
while True:
    try:
        if not sys.argv[1]:
            os.read(tokens, 1)
        child = os.fork()
    except OSError:
        if not full:
            print("full", flush=True)
            full = True
        continue
    if child == 0:
        os.setsid()
    elif os.getpid() % 2:
        os.write(spare, b"x")
        os._exit(0)
"""
HOG = """
import os, time
if os.fork() == 0:
    os.setsid()
    held = []
    while True:
        held.append(bytearray(b"x") * 2**20)
        time.sleep(0.004)
time.sleep(1000)
"""
SHARING = """
import os, time
held = bytearray(b"x") * (80 * 2**20)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for _ in range(4):
    os.wait()
"""
SPAWNING = """
import subprocess
held = bytearray(b"x") * (80 * 2**20)
for _ in range(200):
    subprocess.run(["true"], close_fds=False)
"""
MODULE = """
import os

def dies(number):
    os.kill(os.getpid(), number)

def forges():
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b'{"error": {"types": [1], "retryAfterSeconds": true, "final": 1}}')
        except OSError:
            pass
    os._exit(1)
"""
# By default; by it, too, in a session without a terminal; because the C library's posix_spawn has them ignored.
NOT_DEADLY = {
    *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    *(32, 33),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunnerProcess]:
    async with runners(tmp_path_factory.mktemp("kept"), {"jobs": MODULE}) as make:
        yield await make()


@pytest_asyncio.fixture(loop_scope="module")
async def runner(kept: RunnerProcess) -> AsyncIterator[RunnerProcess]:
    async with alone(kept):
        yield kept


@pytest_asyncio.fixture(loop_scope="module")
async def agent(runner: RunnerProcess) -> Agent:
    return await runner.connect()


@pytest_asyncio.fixture(loop_scope="module")
async def make_runner(tmp_path: Path) -> AsyncIterator[Factory]:
    async with runners(tmp_path, {"jobs": MODULE}) as make:
        yield make


@pytest_asyncio.fixture(loop_scope="module")
async def own(make_runner: Factory) -> RunnerProcess:
    return await make_runner()


@pytest_asyncio.fixture(loop_scope="module")
async def own_agent(own: RunnerProcess) -> Agent:
    return await own.connect()


@pytest.fixture
def process_limit() -> Iterator[Path | None]:
    """A control group that limits processes; None where this user may not make one."""
    made = None
    for base in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = base / f"test-{uuid.uuid4().hex}"
        with suppress(OSError):
            group.mkdir()
            if (group / "pids.max").exists():
                made = group
                break
            group.rmdir()
    yield made
    if made is not None:
        made.rmdir()


def script(source: str, *arguments: str) -> dict[str, Any]:
    return {"command": [sys.executable, "-I", "-S", "-c", source, *arguments]}


async def test_every_exit_code_is_reported(agent: Agent) -> None:
    attempts = {code: agent.start(shell(f"exit {code}")) for code in range(256)}
    ends = {code: await agent.exit(attempt_id) for code, attempt_id in attempts.items()}
    assert {code: (end["exitCode"], end["signal"]) for code, end in ends.items()} == {
        code: (code, None) for code in range(256)
    }
    assert not any("startError" in end for end in ends.values())


async def test_every_signal_is_reported_as_the_cause_of_death(agent: Agent) -> None:
    numbers = [number for number in range(1, 65) if number != signal.SIGSTOP]
    attempts = {number: agent.start(shell(f"kill -{number} $$")) for number in numbers}
    ends = {number: await agent.exit(attempt_id) for number, attempt_id in attempts.items()}
    assert {number: (end["exitCode"], end["signal"]) for number, end in ends.items()} == {
        number: (0, None) if number in NOT_DEADLY else (None, number) for number in numbers
    }


async def test_a_runner_that_was_started_by_nohup_does_not_hand_that_on(make_runner: Factory) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        agent = await (await make_runner()).connect()
    finally:
        signal.signal(signal.SIGHUP, before)
    for run in (shell("kill -HUP $$"), python("jobs:dies", number=signal.SIGHUP)):
        frame = await agent.run(run)
        assert (frame["exitCode"], frame["signal"]) == (None, signal.SIGHUP)


@pytest.mark.parametrize("number", [1, 9, 11, 15, 34, 64])
async def test_signals_that_kill_a_callable_are_reported(agent: Agent, number: int) -> None:
    frame = await agent.run(python("jobs:dies", number=number))
    assert (frame["exitCode"], frame["signal"]) == (None, number)


@pytest.mark.parametrize("grace", [0, 10])
async def test_a_task_that_stopped_itself_is_ended(runner: RunnerProcess, agent: Agent, grace: float) -> None:
    attempt_id = agent.start(shell("echo stopping; kill -STOP $$"))
    await runner.printed("stopping")
    agent.stop(attempt_id, grace)
    assert (await agent.exit(attempt_id))["signal"] == (signal.SIGTERM if grace else signal.SIGKILL)


async def test_a_task_that_closed_its_output_is_not_over(agent: Agent) -> None:
    frame = await agent.run(shell("echo before; exec >&- 2>&-; sleep 0.2; exit 7"))
    assert (frame["exitCode"], frame["tail"]) == (7, "before\n")


async def test_a_callable_cannot_make_the_runner_believe_nonsense(agent: Agent) -> None:
    frame = await agent.run(python("jobs:forges"))
    assert frame["exitCode"] == 1
    assert (await agent.run(shell("true")))["exitCode"] == 0


@pytest.mark.parametrize("grace", [0, 0.2])
async def test_a_fork_bomb_is_ended_to_the_last_process(
    own: RunnerProcess, own_agent: Agent, process_limit: Path | None, grace: float
) -> None:
    neighbour = own_agent.start(SLEEP)
    await own_agent.frame("started", neighbour)
    join = ""
    if process_limit is not None:
        (process_limit / "pids.max").write_text("100")
        join = str(process_limit / "cgroup.procs")
    bomb = own_agent.start(script(BOMB, join))
    await own.printed("full")
    own_agent.stop(bomb, grace)
    frame = await own_agent.exit(bomb)
    assert "supervisorLost" not in frame
    assert list(own.tasks().values()) == ["sleep 1000 "]
    own_agent.stop(neighbour, 10)
    assert (await own_agent.exit(neighbour))["signal"] == signal.SIGTERM


async def test_a_fork_bomb_does_not_outlive_its_supervisor(
    own: RunnerProcess, own_agent: Agent, process_limit: Path | None
) -> None:
    join = ""
    if process_limit is not None:
        (process_limit / "pids.max").write_text("100")
        join = str(process_limit / "cgroup.procs")
    bomb = own_agent.start(script(BOMB, join))
    await own.printed("full")
    os.kill(own.supervisors("plain")[0], signal.SIGKILL)
    assert (await own_agent.exit(bomb))["supervisorLost"]
    assert own.tasks() == {}


@pytest.mark.parametrize("room", [0, 1], ids=["no supervisor", "no task"])
@pytest.mark.parametrize("run", [shell("true"), python("jobs:dies", number=9)], ids=["command", "callable"])
async def test_an_attempt_without_a_process_is_given_back(
    own: RunnerProcess, own_agent: Agent, process_limit: Path | None, room: int, run: dict[str, Any]
) -> None:
    if process_limit is None:
        pytest.skip("this user may not limit processes")
    await own_agent.run(run)
    await own.until(lambda: not own.supervisors("plain") and not own.supervisors("python"))
    for pid in own.processes():
        (process_limit / "cgroup.procs").write_text(str(pid))
    taken = int((process_limit / "pids.current").read_text())
    (process_limit / "pids.max").write_text(str(taken + room))
    frame = await own_agent.run(run)
    assert (frame["supervisorLost"], frame["exhausted"], frame["exitCode"]) == (True, True, None)
    assert "startError" not in frame
    (process_limit / "pids.max").write_text("max")
    assert "supervisorLost" not in await own_agent.run(run)
    await own.finish()


async def test_a_memory_hog_is_killed_and_its_neighbour_is_not(runner: RunnerProcess, agent: Agent) -> None:
    limit = 64 * MEBIBYTE
    neighbour = agent.start(SLEEP, memoryBytes=limit)
    hog = agent.start(script(HOG), memoryBytes=limit)
    frame = await agent.exit(hog)
    assert limit < frame["outOfMemory"] < 4 * limit
    assert (frame["exitCode"], frame["signal"]) == (None, signal.SIGKILL)
    assert list(runner.tasks().values()) == ["sleep 1000 "]
    agent.stop(neighbour, 10)
    frame = await agent.exit(neighbour)
    assert (frame["signal"], frame.get("outOfMemory")) == (signal.SIGTERM, None)


@pytest.mark.parametrize("source", [SHARING, SPAWNING], ids=["fork", "vfork"])
async def test_memory_that_processes_share_counts_once(agent: Agent, source: str) -> None:
    frame = await agent.run(script(source), memoryBytes=140 * MEBIBYTE)
    assert (frame["exitCode"], frame.get("outOfMemory")) == (0, None)


async def test_a_callable_may_have_as_much_memory_as_a_command(agent: Agent) -> None:
    frame = await agent.run(python("jobs:dies", number=9), memoryBytes=64 * MEBIBYTE)
    assert (frame["signal"], frame.get("outOfMemory")) == (9, None)
