"""A runner as a real process, spoken to in frames, with everything that came from it.

Every process of a test inherits a unique variable from the runner's environment, so "no process is left" is a look at
/proc.

To start one costs more than most tests do with it. So tests that leave it whole share one of their module (`alone`
makes it as good as new), and those that kill it or parts of it have their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import taskmaster_worker
from taskmaster_worker.runner.frames import Decoder, encode

PACKAGES = Path(taskmaster_worker.__file__).parents[1]
TIMEOUT = 15.0
SLEEP = {"command": ["sleep", "1000"]}

# pytest-asyncio asks for the current loop before the first async fixture. Where none was ever set, Python < 3.14 makes
# one for the asking, which nobody closes; the warning then hits any later test.
asyncio.set_event_loop(None)


class Agent:
    """The agent's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames: list[dict[str, Any]] = []
        self.closed = asyncio.Event()
        self._writer = writer
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(reader))
        self._count = 0

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        try:
            while data := await reader.read(65536):
                async with self._news:
                    self.frames += decoder.feed(data)
                    self._news.notify_all()
        except ConnectionResetError:
            pass
        self.closed.set()

    def send(self, message: dict[str, Any]) -> None:
        self._writer.write(encode(message))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def start(self, run: dict[str, Any], *, attempt_id: str = "", **more: Any) -> str:
        self._count += 1
        attempt_id = attempt_id or f"uid/{self._count}"
        task = {"name": "name", "namespace": "space", "uid": "uid", "attempt": self._count}
        self.send({"type": "start", "id": attempt_id, "task": task, "run": run, **more})
        return attempt_id

    def stop(self, attempt_id: str, grace: float) -> None:
        self.send({"type": "stop", "id": attempt_id, "graceSeconds": grace})

    async def frame(self, kind: str, attempt_id: str | None = None) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((f for f in self.frames if f["type"] == kind and f.get("id") == attempt_id), None)

        await self.news(lambda: found() is not None)
        frame = found()
        assert frame is not None
        return frame

    async def news(self, condition: Callable[[], bool]) -> None:
        """Wait until frames have come that make the condition true."""
        async with asyncio.timeout(TIMEOUT), self._news:
            await self._news.wait_for(condition)

    def told(self, kind: str, attempt_id: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == kind and frame.get("id") == attempt_id]

    async def exit(self, attempt_id: str) -> dict[str, Any]:
        return await self.frame("exit", attempt_id)

    async def run(self, run: dict[str, Any], **more: Any) -> dict[str, Any]:
        return await self.exit(self.start(run, **more))

    async def close(self) -> None:
        self._writer.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


class RunnerProcess:
    """A runner, its log, and the processes that came from it."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.mark = f"TEST_MARK={uuid.uuid4().hex}".encode()
        self.socket = directory / "runner.sock"
        self.directory = directory
        self.lines: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.silent = True  # no traceback may appear in its log
        self._news = asyncio.Condition()
        self._environment = environment
        self._stack = AsyncExitStack()

    async def begin(self) -> None:
        name, _, value = self.mark.decode().partition("=")
        base = {key: text for key, text in os.environ.items() if not key.startswith(("TASKMASTER_", "PYTHON"))}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "taskmaster_worker.runner",
            cwd=self.directory,
            env={
                **base,
                name: value,
                "PYTHONPATH": f"{PACKAGES}:{self.directory}/app",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TMPDIR": str(self.directory),
                "TASKMASTER_RUNNER_SOCKET": str(self.socket),
                "TASKMASTER_AGENT_UID": str(os.getuid()),
                **self._environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read(self.process.stdout, lambda line: self.lines.append(json.loads(line)))),
            asyncio.create_task(self._read(self.process.stderr, lambda line: self.log.append(line.decode()))),
        ]
        await self.logged("runner listens")

    async def _read(self, stream: asyncio.StreamReader, keep: Callable[[bytes], None]) -> None:
        async for line in stream:
            async with self._news:
                keep(line)
                self._news.notify_all()

    async def logged(self, text: str) -> None:
        await self._until(lambda: any(text in line for line in self.log), text)

    async def printed(self, text: str) -> None:
        await self._until(lambda: any(text in line["message"] for line in self.lines), text)

    async def _until(self, condition: Callable[[], bool], text: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            pytest.fail(f"never seen: {text!r}; log: {self.log}")

    async def connect(self, *, hello: bool = True) -> Agent:
        agent = Agent(*await asyncio.open_unix_connection(self.socket))
        self._stack.push_async_callback(agent.close)
        if hello:
            agent.send({"type": "hello", "version": 2, "incarnation": "test"})
            await agent.frame("hello")
        return agent

    def processes(self) -> dict[int, str]:
        """Living processes of this runner, itself included, by id with their command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.mark in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def tasks(self) -> dict[int, str]:
        """Processes that are neither the runner nor a zygote nor a supervisor."""
        return {pid: line for pid, line in self.processes().items() if "taskmaster_worker.runner" not in line}

    def zygotes(self) -> dict[str, int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
        return {"python" if "callable_task" in line else "plain": pid for pid, line in lines.items() if line}

    def supervisors(self, server: str) -> list[int]:
        pid = self.zygotes()[server]
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def none_left(self, processes: Callable[[], dict[int, str]]) -> None:
        try:
            await self.until(lambda: not processes())
        except TimeoutError:
            pytest.fail(f"still alive: {processes()}; log: {self.log}")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while not condition():  # noqa: ASYNC110 - /proc cannot be awaited
                await asyncio.sleep(0.01)

    async def disconnect(self) -> None:
        await self._stack.aclose()

    async def finish(self) -> None:
        await self.disconnect()
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(TIMEOUT):
            await self.process.wait()
            await asyncio.gather(*self._readers)
        await self.none_left(self.processes)


Factory = Callable[..., Awaitable[RunnerProcess]]


@asynccontextmanager
async def alone(runner: RunnerProcess) -> AsyncIterator[RunnerProcess]:
    """Give a runner of many tests to one of them: what those before have said is forgotten, and nothing may be left."""
    last = f"nobody speaks after {uuid.uuid4().hex}"
    await (await runner.connect()).run(shell(f"echo {last}"))  # starts once all that went before is dead
    await runner.printed(last)
    await runner.disconnect()
    runner.lines.clear()
    runner.log.clear()
    yield runner
    await runner.disconnect()
    await runner.none_left(runner.tasks)
    assert not any("Traceback" in line for line in runner.log), runner.log


@asynccontextmanager
async def runners(directory: Path, modules: dict[str, str]) -> AsyncIterator[Factory]:
    """Give a function that starts a runner whose tasks find the modules; at the end nothing of any may be left."""
    (directory / "app").mkdir()
    for name, source in modules.items():
        (directory / "app" / f"{name}.py").write_text(source)
    made: list[RunnerProcess] = []

    async def make(**environment: str) -> RunnerProcess:
        process = RunnerProcess(directory, environment)
        made.append(process)
        await process.begin()
        return process

    yield make
    for process in made:
        await process.finish()
        if process.silent:
            assert not any("Traceback" in line for line in process.log), process.log
    if all(process.process.returncode == 0 for process in made):
        assert [name for name in os.listdir(directory) if name.startswith("taskmaster-runner-")] == []


def shell(source: str) -> dict[str, Any]:
    return {"command": ["sh", "-c", source]}


def python(reference: str, **arguments: Any) -> dict[str, Any]:
    return {"python": {"callable": reference, "args": arguments}}
