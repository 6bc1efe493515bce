"""Leader election: which of several coordinators may write, decided by one Lease.

The method is client-go's (`tools/leaderelection/leaderelection.go`): a holder's lease has expired when it has not
*changed* for its duration **by our own monotonic clock**. The times written in it are for people; comparing them with
our wall clock would make leadership depend on synchronised clocks. Every write names the resourceVersion that it saw,
so of two candidates one gets a Conflict.

                     lease free or unchanged for its duration
    standby ──────────────────────────────────────────────────▶ leader
       ▲       renew_deadline passed, or another holder seen       │  renews every RETRY_SECONDS
       └───────────────────────────────────────────────────────────┘

Leadership ends by the local deadline whether or not anybody is there to notice: `is_leader` compares the clock each
time it is asked, so it is false after a pause of the whole process, too. The deadline counts from *before* the renewal
was sent. Between it and the moment when another may take over lies a safety margin (15 - 10 = 5 s) for writes that are
under way. A write that takes longer still is harmless: it is conditional (see the design's table of writes).

Hand-over is quick because `release` empties the Lease and standbys watch it, as River's elector listens for
resignations; where the watch does not work they poll.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from taskmaster.kube.api import Api, MergePatch
from taskmaster.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, Unanswered
from taskmaster.kube.resource import LEASES, Object

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15
"""How long others wait for a holder that went silent."""

RENEW_DEADLINE_SECONDS: Final = 10.0
"""How long a leader goes on without a renewal; the rest of the lease is the safety margin."""

RETRY_SECONDS: Final = 2.0
"""Between two renewals."""

POLL_SECONDS: Final = 1.0
"""Between two looks of a standby whose watch does not work; with it a hand-over stays under two seconds."""

REQUEST_SECONDS: Final = 4.0
"""A request that hangs for longer is given up, so that another fits before the deadline."""

RELEASED_LEASE_SECONDS: Final = 1
"""Duration written by `release`; a Lease must have one of at least a second."""


class Lost(Exception):
    """Leadership has ended without our doing: stop writing."""


@dataclass(frozen=True, slots=True)
class _Observation:
    lease: Object
    since: float


class LeaderElector:
    """One candidate. Call `acquire`, then `hold` until it raises `Lost`, then `release`.

    `identity` must be new with each start of the process (pod name plus a random part): whoever finds its own identity
    in the Lease takes it for its own. `owner` is an owner reference, so that the Lease goes with the Deployment.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        name: str,
        identity: str,
        owner: Object | None = None,
        lease_seconds: int = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        random: Random | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self._owner = owner
        self._lease_seconds = lease_seconds
        scale = lease_seconds / LEASE_SECONDS
        self._renew_deadline = RENEW_DEADLINE_SECONDS * scale
        self._retry = RETRY_SECONDS * min(1.0, scale)
        self._request = REQUEST_SECONDS * min(1.0, scale)
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random or Random()
        self._seen: _Observation | None = None
        self._deadline = float("-inf")
        # When it was sent and the renewTime it carried, so that it can be recognised if its answer is lost.
        self._last_write = ("", float("-inf"))
        self._changed = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """True while we hold the Lease by our own clock; ask just before each write."""
        return self._clock() < self._deadline

    @property
    def holder(self) -> str:
        """The holder as last seen, empty if none."""
        return _holder(self._seen.lease) if self._seen is not None else ""

    async def acquire(self) -> None:
        """Return once we lead. Trouble with the server only makes it take longer."""
        async with self._watching():
            while True:
                self._changed.clear()
                try:
                    lease = await self._look()
                    if self._may_take(lease) and await self._write(lease):
                        logger.info("leadership acquired", extra={"lease": self._name, "identity": self.identity})
                        return
                except ApiError as error:
                    logger.warning("cannot read or take the lease", extra={"lease": self._name, "error": str(error)})
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next_look()):
                        await self._changed.wait()

    async def hold(self) -> None:
        """Renew until leadership is lost.

        Raises:
            Lost: another holds the Lease, or it could not be renewed in time. `is_leader` is false from then on.
        """
        while self.is_leader:
            await asyncio.sleep(min(self._retry, max(0.0, self._deadline - self._clock())))
            try:
                async with asyncio.timeout(max(0.0, self._deadline - self._clock())):
                    await self._renew()
            except TimeoutError:
                break
            except ApiError as error:
                logger.warning("lease not renewed", extra={"lease": self._name, "error": str(error)})
        self._deadline = float("-inf")
        raise Lost(f"lease {self._name} could not be renewed in time; last seen holder: {self.holder or 'nobody'}")

    async def release(self) -> None:
        """Give leadership up, so that a standby takes over at once. Call it after the last write has been answered."""
        led, self._deadline = self.is_leader, float("-inf")
        if not led or self._seen is None:
            return
        with suppress(ApiError):
            await self._timed_patch(
                self._seen.lease,
                {"holderIdentity": "", "leaseDurationSeconds": RELEASED_LEASE_SECONDS, **self._times()},
            )
            logger.info("leadership released", extra={"lease": self._name, "identity": self.identity})

    async def _renew(self) -> None:
        assert self._seen is not None
        if await self._write(self._seen.lease):
            return
        # Someone wrote in between, perhaps ourselves in a request whose answer was lost.
        lease = await self._look()
        if lease is not None and (holder := _holder(lease)) != self.identity:
            self._deadline = float("-inf")
            raise Lost(f"lease {self._name} is held by {holder or 'nobody'}")
        renewed, sent = self._last_write
        if lease is not None and lease["spec"].get("renewTime") == renewed:
            self._deadline = max(self._deadline, sent + self._renew_deadline)
        await self._write(lease)

    async def _look(self) -> Object | None:
        try:
            lease = await self._timed(self._api.get(LEASES, self._namespace, self._name))
        except NotFound:
            self._seen = None
            return None
        self._observe(lease)
        return lease

    def _observe(self, lease: Object) -> None:
        if self._seen is None or _revision(self._seen.lease) != _revision(lease):
            self._seen = _Observation(lease, self._clock())

    def _may_take(self, lease: Object | None) -> bool:
        if lease is None or self._seen is None or _holder(lease) in ("", self.identity):
            return True
        return self._clock() >= self._seen.since + _duration(lease, self._lease_seconds)

    def _until_next_look(self) -> float:
        pause = POLL_SECONDS * (0.8 + 0.4 * self._random.random())
        if self._seen is None:
            return pause
        expiry = self._seen.since + _duration(self._seen.lease, self._lease_seconds) - self._clock()
        return min(pause, expiry) if expiry > 0 else pause

    async def _write(self, lease: Object | None) -> bool:
        """Take or renew the Lease as we saw it; False if it has changed since."""
        sent = self._clock()
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": self._lease_seconds, **self._times()}
        before, self._last_write = self._last_write, (spec["renewTime"], sent)
        try:
            if lease is None:
                metadata: Object = {"name": self._name, "namespace": self._namespace}
                if self._owner is not None:
                    metadata["ownerReferences"] = [self._owner]
                spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": 0}
                body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
                stored = await self._timed(self._api.create(LEASES, self._namespace, body))
            else:
                if _holder(lease) != self.identity:
                    transitions = lease.get("spec", {}).get("leaseTransitions") or 0
                    spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": transitions + 1}
                stored = await self._timed_patch(lease, spec)
        except (AlreadyExists, Conflict, NotFound):
            self._last_write = before
            return False
        self._observe(stored)
        self._deadline = sent + self._renew_deadline
        return True

    async def _timed_patch(self, lease: Object, spec: Object) -> Object:
        patch = MergePatch({"metadata": {"resourceVersion": _revision(lease)}, "spec": spec})
        return await self._timed(self._api.patch(LEASES, self._namespace, self._name, patch))

    async def _timed(self, request: Coroutine[Any, Any, Object]) -> Object:
        try:
            async with asyncio.timeout(self._request):
                return await request
        except TimeoutError:
            raise Unanswered(f"no answer within {self._request:g} s") from None

    def _times(self) -> Object:
        # A MicroTime needs exactly six fraction digits.
        return {"renewTime": self._wall_clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")}

    @asynccontextmanager
    async def _watching(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._watch(), name=f"watch-lease-{self._name}")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        """Wake `acquire` when the Lease changes. Failures are left to its polling."""
        selector = f"metadata.name={self._name}"
        while True:
            with suppress(ApiError):
                page = await self._api.list(LEASES, namespace=self._namespace, field_selector=selector)
                self._changed.set()
                async for event in self._api.watch(
                    LEASES,
                    namespace=self._namespace,
                    field_selector=selector,
                    resource_version=page.resource_version,
                    timeout_seconds=300,
                ):
                    if event.type != "BOOKMARK":
                        self._changed.set()
            await asyncio.sleep(POLL_SECONDS)


def _holder(lease: Object) -> str:
    return (lease.get("spec") or {}).get("holderIdentity") or ""


def _revision(lease: Object) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _duration(lease: Object, default: int) -> float:
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or default)
