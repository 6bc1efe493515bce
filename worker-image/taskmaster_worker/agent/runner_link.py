"""The link to the runner: connects for ever, says hello, passes frames on.

A connection counts only once the runner has answered our hello, which it does when nothing of an earlier connection is
left. When a connection ends, by whichever side, everything it started is dead or will be before the next hello is
answered. So closing the connection is how the agent kills everything, and a lost one means that every attempt is lost.

A runner that is there but does not answer is as good as dead: each start must be answered within a minute, each stop
soon after its grace, or the connection is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Final, Protocol, cast

from taskmaster.kube.backoff import Backoff
from taskmaster_worker.agent.attempt import Executor
from taskmaster_worker.agent.connection import Connection
from taskmaster_worker.agent.health import Trouble
from taskmaster_worker.runner.frames import encode
from taskmaster_worker.runner.messages import PROTOCOL_VERSION, AgentHello, Checkpointed, FromRunner, Start, Stop

logger = logging.getLogger(__name__)

HELLO_SECONDS: Final = 30.0
"""How long the runner may take to end what an earlier connection left."""
START_SECONDS: Final = 60.0
"""How long until a start must have been answered."""
STOP_MARGIN_SECONDS: Final = 30.0
"""How long beyond its grace a stopped attempt may take to be over."""
WATCHDOG_SECONDS: Final = 5.0


class LinkListener(Protocol):
    """Who is told what comes from the runner."""

    def on_frame(self, frame: FromRunner) -> None:
        """Handle what the runner says about an attempt.

        Raises:
            KeyError, TypeError, ValueError: the frame is not whole.
        """

    def on_ready(self) -> None:
        """The runner has said hello: it is empty and takes starts."""

    def on_lost(self, reason: str) -> None:
        """The connection has ended after a hello."""


class Runner(Executor, Protocol):
    """What attempts need of the link to the runner."""

    @property
    def ready(self) -> bool:
        """Whether the runner has said hello and is still there."""

    def checkpointed(self, attempt_id: str, sequence: int, error: str | None) -> None:
        """Say what became of a checkpoint."""


class Link(Runner, Protocol):
    """What the worker needs of its link to the runner."""

    listener: LinkListener | None

    @property
    def trouble(self) -> Trouble | None:
        """Why there is no runner, and since when."""

    async def run(self) -> None:
        """Keep connected until cancelled."""

    def reset(self, reason: str) -> None:
        """Kill everything, and connect again."""


class RunnerLink(Link):
    """One connection at a time. `incarnation` is asked at each hello."""

    def __init__(
        self,
        path: str,
        *,
        runner_uid: int | None,
        incarnation: Callable[[], str],
        clock: Callable[[], float],
        random: Random,
        watchdog_seconds: float = WATCHDOG_SECONDS,
    ) -> None:
        self.listener: LinkListener | None = None
        self._watchdog_seconds = watchdog_seconds
        self._path = path
        self._runner_uid = runner_uid
        self._incarnation = incarnation
        self._clock = clock
        self._backoff = Backoff(initial=0.05, factor=2.0, maximum=2.0, random=random)
        self._connection: Connection | None = None
        self._due: dict[str, float] = {}
        self._trouble: Trouble | None = Trouble(clock(), "not connected to the runner yet")

    @property
    def ready(self) -> bool:
        """Whether the runner has said hello and is still there."""
        return self._trouble is None and self._connection is not None and not self._connection.closed.done()

    @property
    def trouble(self) -> Trouble | None:
        """Why there is no runner, and since when."""
        return self._trouble

    async def run(self) -> None:
        """Keep connected until cancelled."""
        while True:
            reason = await self._connect_once()
            if self._trouble is None:
                self._trouble = Trouble(self._clock(), reason)
                self._backoff.reset()
                logger.warning("connection to the runner has ended", extra={"reason": reason})
                if self.listener is not None:
                    self.listener.on_lost(reason)
            elif reason != self._trouble.message:
                self._trouble = Trouble(self._trouble.since, reason)
                logger.warning("no connection to the runner", extra={"reason": reason})
            await asyncio.sleep(self._backoff.next())

    def start(self, frame: Start) -> None:
        """Send a start frame.

        Raises:
            FrameError: it does not fit into a frame.
        """
        self._send(frame)
        self._due[frame["id"]] = self._clock() + START_SECONDS

    def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """Send a stop frame."""
        self._send(Stop(type="stop", id=attempt_id, graceSeconds=grace_seconds))
        self._due[attempt_id] = self._clock() + grace_seconds + STOP_MARGIN_SECONDS

    def checkpointed(self, attempt_id: str, sequence: int, error: str | None) -> None:
        """Send the answer to a checkpoint."""
        answer = Checkpointed(type="checkpointed", id=attempt_id, sequence=sequence)
        if error is not None:
            answer["error"] = error
        self._send(answer)

    def reset(self, reason: str) -> None:
        """Kill everything: close the connection, and connect again."""
        if self._connection is not None:
            self._connection.close(reason)

    def heard(self, frame: dict[str, Any]) -> None:
        """Pass on a frame that came after the hello.

        Raises:
            KeyError, TypeError, ValueError: the frame is not whole.
        """
        kind = frame["type"]
        if kind not in ("started", "progress", "checkpoint", "stalled", "exit"):
            return  # of a newer runner
        if kind in ("started", "exit"):
            self._due.pop(frame["id"], None)
        if self.listener is not None:
            self.listener.on_frame(cast("FromRunner", frame))

    async def _connect_once(self) -> str:
        """Connect, say hello, stay until the connection ends; return why it did."""
        loop = asyncio.get_running_loop()
        self._due.clear()
        try:
            _, connection = await loop.create_unix_connection(lambda: Connection(self.heard), self._path)
        except OSError as error:
            return f"cannot connect to the runner at {self._path}: {error.strerror or error}"
        self._connection = connection
        try:
            if self._runner_uid is not None and connection.peer_uid != self._runner_uid:
                return f"the runner has user id {connection.peer_uid}, not {self._runner_uid}"
            hello = AgentHello(type="hello", version=PROTOCOL_VERSION, incarnation=self._incarnation())
            connection.send(encode(hello))
            with suppress(TimeoutError):
                async with asyncio.timeout(HELLO_SECONDS):
                    await connection.greeted.wait()
            if not connection.greeted.is_set():
                return f"the runner has not said hello within {HELLO_SECONDS:g} s"
            if not connection.closed.done():
                self._trouble = None
                self._backoff.reset()
                if self.listener is not None:
                    self.listener.on_ready()
            await self._watch_over(connection)
            return connection.closed.result()
        finally:
            self._connection = None
            connection.close("closed by the agent")

    async def _watch_over(self, connection: Connection) -> None:
        while not connection.closed.done():
            await asyncio.wait([connection.closed], timeout=self._watchdog_seconds)
            if self._due and min(self._due.values()) < self._clock():
                connection.close("the runner does not answer")

    def _send(self, frame: Start | Stop | Checkpointed) -> None:
        data = encode(frame)
        if self._connection is not None and self.ready:
            self._connection.send(data)
