"""The worker: its parts put together, and how it leaves.

Draining, after SIGTERM or by request of the coordinator (an annotation on the Lease): the Lease says Draining, no new
Task is begun and those still arriving are given back; what runs may go on for `drain_seconds`, is then stopped with its
grace, and given back as Interrupted. After SIGTERM the worker leaves when every record has been acknowledged, and
empties `holderIdentity`; a second SIGTERM stops everything at once. Drained by request it stays, and takes Tasks again
if the request is withdrawn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from random import Random
from typing import Final

from taskmaster.api import names
from taskmaster.core.phase import TERMINAL
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.task import Instant
from taskmaster.kube.api import Api
from taskmaster.kube.client import WATCH_SILENCE_SECONDS
from taskmaster.kube.informer import Informer
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent.assigned import Assigned, assigned
from taskmaster_worker.agent.attempts import Attempts
from taskmaster_worker.agent.health import Health, Trouble
from taskmaster_worker.agent.http_calls import HTTPCalls
from taskmaster_worker.agent.identity import Life, Settings
from taskmaster_worker.agent.lease import WorkerLease
from taskmaster_worker.agent.metrics import AgentMetrics
from taskmaster_worker.agent.parents import Parents
from taskmaster_worker.agent.reader import Reader
from taskmaster_worker.agent.runner_link import Link
from taskmaster_worker.agent.sources import Sources
from taskmaster_worker.agent.writer import StatusWriter
from taskmaster_worker.runner.messages import FromRunner

logger = logging.getLogger(__name__)

WATCH_HEARD_SECONDS: Final = WATCH_SILENCE_SECONDS + 10
"""Silence of the watch beyond which the worker is not well; the client itself gives up a watch somewhat earlier."""

DRAIN_GRACE_SECONDS: Final = BUILT_IN.timeouts.grace_seconds
"""Longest grace of an attempt stopped for draining: the pod's own grace period leaves room for no more."""

ANNOUNCE_SECONDS: Final = 5.0
"""How long a leaving worker tries to say that it drains before it goes on."""

LINGER_SECONDS: Final = 1.0
"""How long it then waits for assignments that were on their way, to give them back."""


class Worker:
    """See the module. `run` returns when the worker has left after `terminate`."""

    def __init__(
        self,
        settings: Settings,
        api: Api,
        link: Link,
        *,
        life: Life,
        metrics: AgentMetrics,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._settings = settings
        self._life = life
        self._link = link
        self._metrics = metrics
        self._clock = clock
        self._terminated = asyncio.Event()
        self._published = asyncio.Event()
        self._drain_request: str | None = None
        self._draining_since = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._began = clock()
        self._told: Set[str] = frozenset()
        self.writer = StatusWriter(api, observer=metrics, clock=clock, random=random)
        requests = HTTPCalls(now=lambda: Instant(wall_clock()))
        reader = Reader(api, settings.namespace, random=random)
        self.attempts = requests.listener = Attempts(
            life=life,
            slots=settings.slots,
            runner=link,
            requests=requests,
            sources=Sources(reader, settings),
            parents=Parents(reader),
            writer=self.writer,
            advertised=lambda: self.lease.published == names.READY_STATE,
            observer=metrics,
            wall_clock=wall_clock,
            random=random,
        )
        self.lease = WorkerLease(
            api, settings, life, listener=self, observer=metrics, clock=clock, wall_clock=wall_clock, random=random
        )
        self.informer: Informer[Assigned] = Informer(
            api,
            TASKS,
            namespace=settings.namespace,
            field_selector=",".join(
                [
                    f"status.assignment.worker={settings.pod_name}",
                    *(f"status.phase!={phase}" for phase in sorted(TERMINAL)),
                ]
            ),
            transform=assigned,
            on_deltas=self.attempts.on_deltas,
            clock=clock,
            random=random,
            observer=metrics,
        )
        self.health = Health(
            {
                "runner": (lambda: link.trouble, 0.0),
                "watch": (self._watch_trouble, 0.0),
                "writes": (lambda: self.writer.trouble, float(settings.renew_seconds)),
            },
            {"lease": lambda: self.lease.trouble, "draining": self._drain_trouble},
            clock=clock,
        )
        metrics.show_slots(
            settings.slots, running=lambda: self.attempts.running, taken=lambda: self.attempts.slots_taken
        )
        link.listener = self

    async def run(self) -> None:
        """Work until terminated and drained."""
        async with asyncio.TaskGroup() as group:
            lease = group.create_task(self.lease.run(), name="lease")
            others = [
                group.create_task(self._link.run(), name="runner-link"),
                group.create_task(self.informer.run(), name="tasks"),
                group.create_task(self.attempts.run(), name="attempts"),
            ]
            await self._terminated.wait()
            await self._leave()
            lease.cancel()
            await asyncio.wait([lease])
            await self.lease.release()
            for task in others:
                task.cancel()

    def terminate(self) -> None:
        """Drain and leave; called again, do so without letting anything go on."""
        if self._terminated.is_set():
            logger.warning("told to terminate again: stopping everything at once")
            self.attempts.interrupt_all(at_most=0, hurry=True)
            return
        logger.info("told to terminate: draining", extra={"running": self.attempts.running})
        self._terminated.set()
        self._drain()

    async def _leave(self) -> None:
        if self.lease.published:
            with suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    while self.lease.published != names.DRAINING_STATE:
                        self._published.clear()
                        await self._published.wait()
            await asyncio.sleep(LINGER_SECONDS)
        self.attempts.give_back()
        await self.attempts.empty.wait()
        logger.info("drained")

    def _drain(self) -> None:
        if self.attempts.open:
            self.attempts.open = False
            self._draining_since = self._clock()
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._settings.drain_seconds, self._interrupt)
            self.lease.poke()

    def _interrupt(self) -> None:
        self.attempts.interrupt_all(at_most=DRAIN_GRACE_SECONDS)

    # ---- runner_link.LinkListener

    def on_frame(self, frame: FromRunner) -> None:
        """Pass it on."""
        self.attempts.on_frame(frame)

    def on_ready(self) -> None:
        """Publish it; begin what waits."""
        logger.info("runner is ready", extra={"incarnation": self._life.incarnation})
        self.lease.poke()
        self.attempts.advance()

    def on_lost(self, reason: str) -> None:
        """Publish it; record what was lost. While the pod ends, the end of its runner is nobody's fault."""
        self.lease.poke()
        self.attempts.on_runner_lost(reason, died=not self._terminated.is_set())

    # ---- lease.LeaseListener

    def state(self) -> str:
        """Return the state to publish."""
        if not self.attempts.open:
            return names.DRAINING_STATE
        return names.READY_STATE if self._link.ready else names.UNAVAILABLE_STATE

    def may_claim(self) -> bool:
        """Whether this life may be published."""
        return self._link.ready and self.informer.synced.is_set() and not self._terminated.is_set() and self.well()

    def well(self) -> bool:
        """Whether everything that a task needs is well."""
        troubles = self.health.vital_troubles()
        if troubles.keys() != self._told:
            self._told = troubles.keys()
            if troubles:
                parts = {name: trouble.message for name, trouble in troubles.items()}
                logger.warning("worker is not well: its lease is not renewed", extra={"parts": parts})
            else:
                logger.info("worker is well again")
        return not troubles

    def on_taken_over(self, by: str) -> None:
        """Kill everything and begin a new life."""
        self.attempts.abandon_all()
        self._life.begin_anew()
        self._link.reset("the worker was declared dead")

    def on_drain_request(self, reason: str | None) -> None:
        """Drain, or stop draining, without leaving."""
        if reason is not None:
            logger.info("asked to drain", extra={"reason": reason})
            self._drain()
        elif not self._terminated.is_set() and not self.attempts.open:
            logger.info("no longer asked to drain")
            if self._deadline is not None:
                self._deadline.cancel()
            self.attempts.open = True
            self.attempts.advance()

    def on_published(self) -> None:
        """Give back what arrived while the Lease still invited Tasks."""
        self._published.set()
        self.attempts.advance()

    # ---- health

    def _watch_trouble(self) -> Trouble | None:
        last_error = self.informer.last_error
        if not self.informer.synced.is_set():
            return Trouble(self._began, last_error or "the first list of Tasks is not complete")
        heard = max(self.informer.last_heard, self._metrics.watch_opened)
        if self._clock() - heard > WATCH_HEARD_SECONDS:
            return Trouble(heard, last_error or "the watch on Tasks is silent")
        return None

    def _drain_trouble(self) -> Trouble | None:
        return None if self.attempts.open else Trouble(self._draining_since, "draining: takes no new Tasks")
