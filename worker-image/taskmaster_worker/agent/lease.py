"""The worker's Lease: by it a worker registers, says that it lives, and learns that it has been declared dead.

::

    Unclaimed ──runner and watch are well──▶ Claimed ──renewed while all is well
        ▲                                       │
        └── the Lease names another holder or incarnation: killed everything, new incarnation

Every write names the resourceVersion that it saw, so a change by the coordinator (a takeover, a drain request) always
meets us as a Conflict, and is read. A renewal is not sent while the worker is not well; running work goes on all the
same (`onLeaseLoss: Continue`). A change of state is sent at once, well or not: it does not claim to be alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final, Protocol

from taskmaster.api import names
from taskmaster.kube.api import Api, MergePatch
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unanswered
from taskmaster.kube.resource import LEASES, Object
from taskmaster_worker.agent.health import Trouble
from taskmaster_worker.agent.identity import Life, Settings
from taskmaster_worker.agent.registration import claim, is_claim, renewal, state_of

logger = logging.getLogger(__name__)

RELEASE_SECONDS: Final = 5.0
"""How long `release` tries before it leaves the rest to the coordinator, which sees the Pod end."""


class LeaseListener(Protocol):
    """Who decides what the Lease says, and is told what others wrote into it."""

    def state(self) -> str:
        """Return the state to publish: Ready, Draining or Unavailable."""

    def may_claim(self) -> bool:
        """Whether this life may be published: the runner is empty, the watch is there."""

    def well(self) -> bool:
        """Whether a renewal would be honest."""

    def on_taken_over(self, by: str) -> None:
        """This life has been declared dead. Must begin a new one before it returns."""

    def on_drain_request(self, reason: str | None) -> None:
        """The coordinator asks to drain, or (None) no longer does; called upon each change."""

    def on_published(self) -> None:
        """What the Lease says has changed to what `state` said."""


class LeaseObserver(Protocol):
    """Counts renewals."""

    def lease_renewal(self, result: str) -> None:
        """Report a write of the Lease: Renewed, Conflict, Failed, or Withheld."""


class WorkerLease:
    """See the module."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        life: Life,
        *,
        listener: LeaseListener,
        observer: LeaseObserver,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._api = api
        self._settings = settings
        self._life = life
        self._listener = listener
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._interval = settings.renew_seconds * (0.9 + 0.1 * random.random())
        self._request_seconds = max(1.0, settings.renew_seconds / 2)
        self._backoff = Backoff(initial=0.1, factor=2.0, maximum=settings.renew_seconds / 2, random=random)
        self._seen: Object | None = None
        self._claimed = False
        self._withheld = False
        self._drain_request: str | None = None
        self._renewed = clock()
        self._poked = asyncio.Event()
        self.published = ""
        """The state in the Lease as last acknowledged; empty while this life is not registered."""

    @property
    def trouble(self) -> Trouble | None:
        """Why the coordinator cannot count on this worker."""
        if not self._claimed:
            return Trouble(self._renewed, "not registered")
        if self._clock() - self._renewed > 2 * self._settings.renew_seconds:
            return Trouble(self._renewed, "the Lease has not been renewed")
        return None

    def poke(self) -> None:
        """Look at once: the state may have changed."""
        self._poked.set()

    async def run(self) -> None:
        """Keep the Lease until cancelled."""
        while True:
            self._poked.clear()
            try:
                async with asyncio.timeout(self._request_seconds):
                    await self._step()
                self._backoff.reset()
                pause = self._pause()
            except (Conflict, AlreadyExists, NotFound):
                self._observer.lease_renewal("Conflict")
                self._seen = None
                await asyncio.sleep(self._backoff.next())
                continue
            except (ApiError, TimeoutError) as error:
                self._observer.lease_renewal("Failed")
                self._seen = None  # it may have been written all the same
                problem = error if isinstance(error, ApiError) else Unanswered("no answer in time")
                pause = self._backoff.next(at_least=problem.retry_after)
                logger.warning("lease not written", extra={"error": str(problem), "pause": round(pause, 3)})
                await asyncio.sleep(pause)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poked.wait()

    async def release(self) -> None:
        """Say that this worker is gone, so that nobody has to wait for its silence."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                while self._claimed:
                    with suppress(ApiError):
                        lease = await self._read()
                        if lease is not None and is_claim(lease, self._life.holder):
                            body = {"spec": {"holderIdentity": ""}}
                            await self._write(lease, body)
                        self._claimed, self.published = False, ""
                        logger.info("lease released")
                        return
                    await asyncio.sleep(self._backoff.next())

    async def _step(self) -> None:
        lease = self._seen or await self._read()
        if lease is not None and self._claimed and not is_claim(lease, self._life.holder):
            self._lose(lease)
        state, now = self._listener.state(), self._clock()
        if not self._claimed or lease is None:
            if self._listener.may_claim():
                body = claim(self._settings, self._life.holder, state, lease, now=self._wall_clock())
                await self._write(lease, body)
                logger.info("registered", extra={"incarnation": self._life.incarnation, "state": state})
                self._claimed, self._renewed = True, now
                self._publish(state)
            return
        due = now >= self._renewed + self._interval
        well = due and self._listener.well()
        if well or state != state_of(lease):
            body = renewal(state, now=self._wall_clock() if well else None)
            await self._write(lease, body)
            if well:
                self._renewed = now
                self._observer.lease_renewal("Renewed")
        if due and not well and not self._withheld:
            self._observer.lease_renewal("Withheld")
        self._withheld = due and not well
        self._publish(state)

    def _lose(self, lease: Object) -> None:
        by = (lease.get("spec") or {}).get("holderIdentity") or "nobody"
        logger.error("this worker was declared dead: killing everything, beginning anew", extra={"holder": by})
        self._claimed, self.published = False, ""
        self._renewed = self._clock()
        self._listener.on_taken_over(by)

    def _publish(self, state: str) -> None:
        if state != self.published:
            self.published = state
            self._listener.on_published()

    async def _read(self) -> Object | None:
        try:
            self._observe(await self._api.get(LEASES, self._settings.namespace, self._settings.pod_name))
        except NotFound:
            self._seen = None
        return self._seen

    async def _write(self, lease: Object | None, body: Object) -> None:
        namespace, name = self._settings.namespace, self._settings.pod_name
        if lease is None:
            self._observe(await self._api.create(LEASES, namespace, body))
        else:
            body = {**body, "metadata": {**body.get("metadata", {}), "resourceVersion": _version(lease)}}
            self._observe(await self._api.patch(LEASES, namespace, name, MergePatch(body)))

    def _observe(self, lease: Object) -> None:
        self._seen = lease
        request = (lease["metadata"].get("annotations") or {}).get(names.DRAIN_REQUEST_ANNOTATION)
        if request != self._drain_request:
            self._drain_request = request
            self._listener.on_drain_request(request)

    def _pause(self) -> float:
        """Return when to look again if nobody pokes, in seconds."""
        until_due = self._renewed + self._interval - self._clock()
        return until_due if self._claimed and until_due > 0 else min(1.0, self._interval)


def _version(lease: Object) -> str:
    return str(lease["metadata"]["resourceVersion"])
