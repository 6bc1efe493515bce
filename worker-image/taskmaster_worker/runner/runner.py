"""All attempts of a runner, and the two fork servers that they come from.

Invariant: an id is in `attempts` exactly while a process of it may exist; `end_all` returns when there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from taskmaster_worker.runner import descendants
from taskmaster_worker.runner.attempt import Attempt, attempt_directory
from taskmaster_worker.runner.ending import lost_frame
from taskmaster_worker.runner.fork_server import ForkServer
from taskmaster_worker.runner.messages import Checkpointed, FromRunner, Start, Stop
from taskmaster_worker.runner.printer import Printer
from taskmaster_worker.runner.settings import Settings
from taskmaster_worker.runner.spec import Spec
from taskmaster_worker.runner.workspace import remove_workspace
from taskmaster_worker.runner.zygote import log

END_SECONDS: Final = 2.0
_RESTART_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 0.003
_NOT_READY = "the fork server for {} does not start: the runner container's log says why"


class Runner:
    """Starts, stops and forgets attempts."""

    def __init__(self, settings: Settings, *, printer: Printer, workspace: str, open_files: int) -> None:
        self.attempts: dict[str, Attempt] = {}
        self._printer = printer
        self._workspace = workspace
        self._token = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._jobs: set[asyncio.Task[None]] = set()
        environment = settings.task_environment
        self._plain = ForkServer(
            "plain", flags=["-I", "-S"], environment=environment, open_files=open_files, on_death=self._server_died
        )
        self._python = ForkServer(
            "python",
            flags=["-P"],
            preload=["taskmaster_worker.runner.callable_task"],
            optional_preload=settings.preload,
            environment=environment,
            open_files=open_files,
            on_death=self._server_died,
        )
        self._servers = (self._plain, self._python)
        for server in self._servers:
            server.start()

    def start(self, start: Start, send: Callable[[FromRunner], None]) -> None:
        """Start an attempt; one that is running already is left alone."""
        if start["id"] in self.attempts:
            log("warning", "start of an attempt that is running was ignored", attempt=start["id"])
            return
        self._token += 1
        task = start["task"]
        server = self._python if "python" in start["run"] else self._plain
        try:
            attempt = Attempt(
                start, token=self._token, server=server, printer=self._printer, send=send, on_over=self._over
            )
        except OSError as error:  # no descriptors left: not the task's fault
            log("error", "attempt cannot be started", attempt=start["id"], error=str(error))
            send(lost_frame(start["id"], exhausted=True))
            return
        self.attempts[attempt.id] = attempt
        self._empty.clear()
        identity = {
            "TASK_NAME": task["name"],
            "TASK_NAMESPACE": task["namespace"],
            "TASK_UID": task["uid"],
            "TASK_ATTEMPT": str(task["attempt"]),
        }
        attempt.begin(
            Spec(
                run=start["run"],
                env={**start.get("env", {}), **identity},
                workingDir=start.get("workingDir", ""),
                directory=attempt_directory(self._workspace, self._token),
                dependencies=start.get("dependencies", {}),
                checkpoint=start.get("checkpoint"),
                memoryBytes=start.get("memoryBytes"),
            )
        )

    def stop(self, order: Stop) -> None:
        """Stop an attempt; an unknown one has ended already."""
        if (attempt := self.attempts.get(order["id"])) is not None:
            attempt.stop(order["graceSeconds"])

    def checkpointed(self, answer: Checkpointed) -> None:
        """Pass on what became of a checkpoint."""
        if (attempt := self.attempts.get(answer["id"])) is not None:
            attempt.checkpointed(answer)

    async def end_all(self) -> None:
        """Kill every process of every attempt and return when none is left."""
        while self.attempts:
            for attempt in self.attempts.values():
                attempt.end()
            try:
                await asyncio.wait_for(self._empty.wait(), END_SECONDS)
            except TimeoutError:
                log("error", "attempts do not end: fork servers are killed", attempts=len(self.attempts))
                for server in self._servers:
                    server.kill()

    async def close(self) -> None:
        """End everything, the fork servers too."""
        await self.end_all()
        self._closing = True
        for server in self._servers:
            server.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                while descendants.reap()[1]:  # noqa: ASYNC110 - SIGCHLD says that one has ended, not that all have
                    await asyncio.sleep(_SWEEP_SECONDS)
        except TimeoutError:
            await self._sweep(set())

    def _over(self, attempt: Attempt) -> None:
        del self.attempts[attempt.id]
        if not self.attempts:
            self._empty.set()

    def _server_died(self, server: ForkServer) -> None:
        job = self._loop.create_task(self._replace(server, [a for a in self.attempts.values() if a.server is server]))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _replace(self, server: ForkServer, orphaned: list[Attempt]) -> None:
        was_ready = server.ready
        if was_ready:
            server.start()
        await self._sweep({known.pid for known in self._servers})
        for attempt in orphaned:
            attempt.lose("" if was_ready else _NOT_READY.format(server.name))
            remove_workspace(attempt_directory(self._workspace, attempt.token))
        if not was_ready and not self._closing:
            await asyncio.sleep(_RESTART_SECONDS)
            server.start()

    async def _sweep(self, known: set[int]) -> None:
        """Kill and collect every child that is not known: what a dead zygote has left to this process."""
        while descendants.kill_all(known):
            descendants.reap()
            await asyncio.sleep(_SWEEP_SECONDS)
