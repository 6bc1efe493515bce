"""The agent with the real runner process, its pages, its command line, and the installation of the runner."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import time
from typing import Any

import aiohttp
import pytest
from tests.sim.memory_api import MemoryApi
from tests.sim.memory_server import MemoryServer
from tests.unit.agent_worker import Stage, settings, until

import taskmaster_worker
from taskmaster_worker.agent.__main__ import main
from taskmaster_worker.agent.identity import BadSetting, Life
from taskmaster_worker.agent.metrics import AgentMetrics
from taskmaster_worker.agent.runner_link import RunnerLink
from taskmaster_worker.agent.server import application, serving
from taskmaster_worker.agent.worker import Worker


class RealStage(Stage):
    """A stage with a real runner behind the link."""

    def __init__(self, socket: Path) -> None:
        self.settings = settings(runner_socket=str(socket), slots=10)
        self.server = MemoryServer(now=lambda: datetime.now(UTC))
        self.api = MemoryApi(self.server, client="agent")
        self.clock = asyncio.get_running_loop().time
        self.now = time
        self.metrics = AgentMetrics(clock=self.clock)
        self.life = Life(self.settings)
        self.link = RunnerLink(
            str(socket),
            runner_uid=os.getuid(),
            incarnation=lambda: self.life.incarnation,
            clock=self.clock,
            random=Random(1),
        )
        self.worker = Worker(
            self.settings,
            self.api,
            self.link,
            life=self.life,
            metrics=self.metrics,
            clock=self.clock,
            wall_clock=time,
            random=Random(1),
        )


@contextmanager
def runner(socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "TASKMASTER_RUNNER_SOCKET": str(socket),
        "PYTHONPATH": str(Path(taskmaster_worker.__file__).parent.parent),
        "TMPDIR": str(socket.parent),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "taskmaster_worker.runner"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def real(socket: Path) -> AsyncIterator[RealStage]:
    on = RealStage(socket)
    task = asyncio.create_task(on.worker.run())
    try:
        await until(lambda: on.worker.lease.published == "Ready")
        yield on
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_real_runner_runs_what_is_assigned(tmp_path: Path) -> None:
    script = 'echo "hello from $TASK_NAME"; echo "[$TASK_ATTEMPT]" > "$TASK_RESULT_FILE"; exit $CODE'
    tasks: dict[str, dict[str, Any]] = {
        "good": {"run": {"command": ["sh", "-c", script]}, "env": [{"name": "CODE", "value": "0"}]},
        "bad": {
            "run": {"script": {"interpreter": "/bin/sh", "source": script}},
            "env": [{"name": "CODE", "value": "7"}],
        },
        "python": {"run": {"python": {"callable": "json:dumps", "args": {"obj": [1, 2]}}}},
        "missing": {"run": {"command": ["no-such-command"]}},
        "slow": {"run": {"command": ["sleep", "60"]}, "timeouts": {"attemptSeconds": 1, "graceSeconds": 1}},
    }
    socket = tmp_path / "runner.sock"
    with runner(socket):
        async with real(socket) as on:
            for name, spec in tasks.items():
                on.submit(name, retry={"limit": 0}, **spec)
            await until(lambda: all(on.phase(name) in ("Succeeded", "Failed") for name in tasks))
            assert {name: on.status(name)["reason"] for name in tasks} == {
                "good": "Completed",
                "bad": "ExitCode",
                "python": "Completed",
                "missing": "StartFailed",
                "slow": "TimedOut",
            }
            assert on.status("good")["result"] == [1]
            assert on.status("good")["logTail"] == "hello from good\n"
            assert on.status("python")["result"] == "[1, 2]"
            assert on.status("bad")["exitCode"] == 7


COUNTING = """
import os, sys, time
from taskmaster_worker import context
done = (context.last_checkpoint or {"step": 0})["step"]
for step in range(done + 1, 4):
    context.progress(current=step, total=3)
    context.checkpoint({"step": step})
    print(step, flush=True)
    if step == 2 and os.environ["TASK_ATTEMPT"] == "1":
        os.kill(os.getpid(), 9)
"""


async def test_what_a_real_task_saves_is_there_for_its_next_attempt(tmp_path: Path) -> None:
    spec: dict[str, Any] = {
        "run": {"script": {"interpreter": sys.executable, "source": COUNTING}},
        "retry": {"backoff": {"initialSeconds": 0}},
        "resources": {"memoryMiB": 512},
        "timeouts": {"stallSeconds": 30},
    }
    socket = tmp_path / "runner.sock"
    with runner(socket):
        async with real(socket) as on:
            on.submit("a", **spec)
            await until(lambda: bool(on.status("a").get("attempts")))
            assert on.status("a")["attempts"][-1]["signal"] == 9
            assert on.status("a")["checkpoint"]["data"] == {"step": 2}
            assert on.status("a")["progress"]["current"] == 2
            on.assign("a")
            await until(lambda: on.phase("a") == "Succeeded")
            assert on.status("a")["logTail"] == "3\n", "no step before the last checkpoint ran twice"
            assert (on.status("a")["checkpoint"]["attempt"], on.status("a")["progress"]["current"]) == (2, 3)


async def test_real_tasks_that_hang_or_take_too_much_memory_are_ended_for_it(tmp_path: Path) -> None:
    hog = "import time; kept = [bytearray(2**20) for _ in range(200)]; time.sleep(60)"
    socket = tmp_path / "runner.sock"
    with runner(socket):
        async with real(socket) as on:
            never = {"limit": 0}
            on.submit("hog", run={"command": [sys.executable, "-c", hog]}, resources={"memoryMiB": 64}, retry=never)
            hanging = {"stallSeconds": 1, "graceSeconds": 1}
            on.submit("hangs", run={"command": ["sleep", "60"]}, timeouts=hanging, retry=never)
            on.submit("cancelled", run={"command": ["sleep", "60"]}, timeouts={"graceSeconds": 1})
            await until(lambda: on.phase("cancelled") == "Running")
            on.edit("cancelled", cancel=True)
            names = ("hog", "hangs", "cancelled")
            await until(lambda: all(on.phase(name) in ("Failed", "Cancelled") for name in names))
            assert [on.status(name)["reason"] for name in names] == ["OutOfMemory", "Stalled", "Cancelled"]


async def test_killing_the_real_runner_loses_its_attempts_and_a_new_one_takes_over(tmp_path: Path) -> None:
    socket = tmp_path / "runner.sock"
    with runner(socket) as first:
        async with real(socket) as on:
            on.submit("a", run={"command": ["sleep", "60"]})
            await until(lambda: on.phase("a") == "Running")
            first.kill()
            await until(lambda: on.phase("a") == "Pending")
            assert on.status("a")["attempts"][-1]["outcome"] == "WorkerLost"
            await until(lambda: on.state == "Unavailable")
            with runner(socket):
                await until(lambda: on.state == "Ready")
                on.create("b")
                on.assign("b")
                await until(lambda: on.phase("b") == "Succeeded")


async def test_the_pages_say_which_part_is_not_well_and_since_when() -> None:
    on = Stage()
    app = application(on.worker.health, on.metrics.registry, clock=on.clock)
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/livez") as page:
            assert page.status == 200
        async with session.get("/readyz") as page:
            assert page.status == 503
            parts = (await page.json())["parts"]
            assert not parts["runner"]["ready"]
            assert parts["runner"]["message"] == "not connected"
            assert datetime.fromisoformat(parts["runner"]["since"]) <= datetime.now(UTC)
            assert parts["writes"] == {"ready": True}
        task = asyncio.create_task(on.worker.run())
        await until(lambda: on.worker.lease.published == "Ready")
        async with session.get("/readyz") as page:
            assert page.status == 200
        async with session.get("/metrics") as page:
            text = await page.text()
            assert "taskmaster_worker_slots 2.0" in text
        task.cancel()
        await asyncio.wait([task])


async def test_an_address_in_use_is_named() -> None:
    on = Stage()
    app = application(on.worker.health, on.metrics.registry)
    async with serving(app, "127.0.0.1", 0) as port:
        with pytest.raises(BadSetting, match=f"TASKMASTER_HTTP_ADDRESS.*:{port}"):
            async with serving(application(on.worker.health, on.metrics.registry), "127.0.0.1", port):
                pass


def test_the_installed_runner_is_whole_and_needs_only_the_standard_library(tmp_path: Path) -> None:
    for _ in range(2):  # an init container may run twice
        assert main(["install-runner", str(tmp_path)]) == 0
    assert {path.name for path in (tmp_path / "taskmaster_worker").iterdir()} >= {"__init__.py", "runner", "sdk"}
    assert not (tmp_path / "taskmaster_worker" / "agent").exists()
    code = "import taskmaster_worker.runner.server, taskmaster_worker.sdk; print(taskmaster_worker.__file__)"
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(tmp_path))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["install-runner", str(tmp_path / "file")]) == 2
    assert "cannot install the runner" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nonsense"], ["install-runner"]])
def test_a_wrong_command_line_shows_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_setting_ends_the_agent_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POD_NAME", raising=False)
    assert main([]) == 2
    assert "POD_NAME must be set" in capsys.readouterr().err
