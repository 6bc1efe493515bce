"""The runner's process: socket, signals, and who is the agent.

A connection becomes the agent's when it says hello: an earlier one is closed, everything that it started is killed, and
only then is the hello answered. When the agent's connection ends, everything is killed.

SIGTERM: at the deletion of a pod both containers get one, but draining is for the agent to decide. So the runner only
remembers it, and exits when no agent is connected (any more).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import stat
from typing import Any

from taskmaster_worker.runner import descendants, kernel
from taskmaster_worker.runner.connection import Connection
from taskmaster_worker.runner.messages import PROTOCOL_VERSION, RunnerHello
from taskmaster_worker.runner.printer import Printer, open_nonblocking
from taskmaster_worker.runner.runner import Runner
from taskmaster_worker.runner.settings import Settings, read_settings
from taskmaster_worker.runner.workspace import create_workspace, remove_workspace
from taskmaster_worker.runner.zygote import log


class Server:
    """The gate between connections and the runner."""

    def __init__(self, runner: Runner, settings: Settings) -> None:
        self.finished = asyncio.Event()
        self._runner = runner
        self._settings = settings
        self._agent: Connection | None = None
        self._terminating = False
        self._lock = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()

    def connect(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self._runner, self, agent_uid=self._settings.agent_uid)

    def asked(self, connection: Connection, hello: dict[str, Any]) -> None:
        """Adopt a connection once nothing of an earlier one is left."""
        self._spawn(self._adopt(connection, hello))

    def lost(self, connection: Connection) -> None:
        """Kill everything if this was the agent."""
        if connection is self._agent:
            log("info", "agent disconnected", attempts=len(self._runner.attempts))
            self._spawn(self._clear())

    def terminate(self) -> None:
        """Exit as soon as no agent is connected."""
        log("info", "asked to terminate", agent=self._agent is not None)
        self._terminating = True
        if self._agent is None:
            self.finished.set()

    async def _adopt(self, connection: Connection, hello: dict[str, Any]) -> None:
        async with self._lock:
            if self._agent is not None:
                self._agent.close("another connection said hello")
                self._agent = None
            await self._runner.end_all()
            if connection.closed:
                return
            connection.send(
                RunnerHello(type="hello", version=PROTOCOL_VERSION, python=platform.python_version(), pid=os.getpid())
            )
            if hello.get("version") != PROTOCOL_VERSION:
                connection.finish(f"agent speaks version {hello.get('version')}, this runner {PROTOCOL_VERSION}")
                return
            log("info", "agent connected", incarnation=str(hello.get("incarnation")))
            self._agent = connection
            connection.adopted = True

    async def _clear(self) -> None:
        async with self._lock:
            if self._agent is None or not self._agent.closed:
                return
            await self._runner.end_all()
            self._agent = None
            if self._terminating:
                self.finished.set()

    def _spawn(self, job: Any) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)


def listen(path: str) -> socket.socket:
    """Return a listening socket at the path, mode 0660; one that an earlier runner left there is removed."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o117)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen()
    return listener


async def run(settings: Settings) -> None:
    """Run until told to terminate."""
    loop = asyncio.get_running_loop()
    kernel.become_subreaper()
    workspace = create_workspace(os.environ)
    try:
        loop.add_signal_handler(signal.SIGCHLD, lambda: descendants.reap() and None)  # as process 1: anybody's orphans
        printer = Printer(open_nonblocking(1))
        runner = Runner(settings, printer=printer, workspace=workspace, open_files=kernel.raise_open_files())
        server = Server(runner, settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.terminate)
        with listen(settings.socket) as listener:
            async with await loop.create_unix_server(server.connect, sock=listener):
                log("info", "runner listens", socket=settings.socket, pid=os.getpid())
                await server.finished.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(settings.socket)
        await runner.close()
    finally:
        remove_workspace(workspace)


def main() -> int:
    """Run the runner as the environment says; return the exit code."""
    try:
        asyncio.run(run(read_settings(os.environ)))
    except (OSError, ValueError) as error:
        log("error", "runner cannot start", error=str(error))
        return 1
    return 0
