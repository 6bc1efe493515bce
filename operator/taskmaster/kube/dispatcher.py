"""Dispatcher: sends the writes that pure code has decided, and reports what became of each.

Modelled on kube-scheduler's `backend/api_dispatcher`: at most one write per object is in flight, and a newer intent
replaces an older one that has not been sent. Here a write is conditional (its patch tests the state that it leaves), so
order between objects does not matter, and losing a race is an answer (422), not an accident.

What is tried again here is only 429, because then the server has certainly not looked at the write. After a lost answer
or a 5xx the write may have been applied; the caller reads the object and decides again. On 429 everything pauses
(Retry-After is a statement about the server, not about one object) and the concurrency is halved, to grow back by one
per round of successes: TCP's AIMD.

Invariant: `done` of every submitted write is called exactly once, also when the dispatcher is cancelled.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from taskmaster.kube.api import Api, Patch
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import ApiError, NotSent, TooManyRequests, Unanswered
from taskmaster.kube.resource import Object, Resource

logger = logging.getLogger(__name__)

GROWTH_PER_ROUND: Final = 1.0
"""By how much the concurrency grows while as many writes succeed as fit in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write to one object; `key` is the object's uid, `patch=None` deletes it.

    `uid` and `resource_version` are preconditions of a delete; a patch carries its own.
    """

    key: str
    resource: Resource
    namespace: str | None
    name: str
    patch: Patch | None
    subresource: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation: str | None = None
    done: Callable[["Outcome"], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write: the object as stored (None for a delete), an error, or superseded by a newer intent."""

    write: Write
    object: Object | None = None
    error: ApiError | None = None
    superseded: bool = False

    @property
    def abandoned(self) -> bool:
        """True if it was never sent, because we no longer lead or are shutting down."""
        return isinstance(self.error, NotSent)


class Dispatcher:
    """Sends at most `concurrency` writes at a time while `may_send()` holds."""

    def __init__(
        self,
        api: Api,
        *,
        concurrency: int,
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._api = api
        self._concurrency = concurrency
        self._may_send = may_send
        self._clock = clock
        self._backoff = Backoff(initial=0.5, factor=2.0, maximum=30.0, random=random or Random())
        self._limit = float(concurrency)
        # `_ready` may be sent, oldest first; `_behind` waits for its own object's write in flight. A key is in at most
        # one of them.
        self._ready: OrderedDict[str, Write] = OrderedDict()
        self._behind: dict[str, Write] = {}
        self._sending: dict[str, Write] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.paused_until = 0.0

    @property
    def in_flight(self) -> int:
        """Writes sent and not answered."""
        return len(self._sending)

    @property
    def waiting(self) -> int:
        """Writes not sent yet."""
        return len(self._ready) + len(self._behind)

    @property
    def limit(self) -> int:
        """How many writes may be in flight at present."""
        return max(1, int(self._limit))

    def submit(self, write: Write) -> None:
        """Take a write over; returns at once.

        A waiting write for the same key is superseded, and its place in the line is this one's.
        """
        if self._closed:
            _finish(Outcome(write, error=NotSent("the dispatcher has stopped")))
            return
        queue: dict[str, Write] = self._behind if write.key in self._sending else self._ready
        older = queue.get(write.key)
        queue[write.key] = write
        self._idle.clear()
        self._changed.set()
        if older is not None:
            _finish(Outcome(older, superseded=True))

    async def run(self) -> None:
        """Send for ever; cancel to stop. What is in flight is then reported as unanswered, what waits as not sent."""
        loop = asyncio.get_running_loop()
        alarm: asyncio.TimerHandle | None = None
        try:
            while True:
                self._changed.clear()
                pause = self.paused_until - self._clock()
                if pause <= 0:
                    self._send()
                elif self._ready:
                    if alarm is not None:
                        alarm.cancel()
                    alarm = loop.call_later(pause, self._changed.set)
                await self._changed.wait()
        finally:
            if alarm is not None:
                alarm.cancel()
            await self._close()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - the result says which it was
        """Wait until nothing waits or flies, at most `timeout` seconds; return whether that was reached."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _send(self) -> None:
        while self._ready and len(self._sending) < self.limit:
            key, write = self._ready.popitem(last=False)
            self._sending[key] = write
            task = asyncio.create_task(self._perform(write), name=f"write-{key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _perform(self, write: Write) -> None:
        outcome: Outcome | None
        try:
            outcome = await self._attempt(write)
        except asyncio.CancelledError:
            outcome = Outcome(write, error=Unanswered("cancelled while in flight"))
        del self._sending[write.key]
        newer = self._behind.pop(write.key, None)
        if outcome is None:
            # Refused unseen: back to the head of the line, unless something newer wants the object.
            if newer is None:
                self._ready[write.key] = write
                self._ready.move_to_end(write.key, last=False)
            else:
                outcome = Outcome(write, superseded=True)
        if newer is not None:
            self._ready[write.key] = newer
        self._changed.set()
        if outcome is not None:
            _finish(outcome)
        if not self._sending and not self._ready:
            self._idle.set()

    async def _attempt(self, write: Write) -> Outcome | None:
        """Send once; None means that the server was too busy to look at it."""
        if not self._may_send():
            return Outcome(write, error=NotSent("leadership was lost before sending"))
        started = self._clock()
        try:
            stored = await self._call(write)
        except TooManyRequests as error:
            self._slow_down(error, started)
            return None
        except ApiError as error:
            return Outcome(write, error=error)
        except Exception as error:
            # A bug of ours, or of the transport. The caller must hear of it all the same, or its assumption stays for
            # ever.
            logger.exception("write failed in an unforeseen way", extra={"resource": write.resource.plural})
            return Outcome(write, error=Unanswered(f"{type(error).__name__}: {error}"))
        self._backoff.reset()
        self._limit = min(self._concurrency, self._limit + GROWTH_PER_ROUND / self._limit)
        return Outcome(write, stored)

    async def _call(self, write: Write) -> Object | None:
        if write.patch is not None:
            return await self._api.patch(
                write.resource, write.namespace, write.name, write.patch, subresource=write.subresource
            )
        await self._api.delete(
            write.resource,
            write.namespace,
            write.name,
            uid=write.uid,
            resource_version=write.resource_version,
            propagation=write.propagation,
        )
        return None

    def _slow_down(self, error: TooManyRequests, started: float) -> None:
        now = self._clock()
        if started < self.paused_until:
            return  # sent before the pause began: part of the burst that has already been answered by halving
        self._limit = max(1.0, self._limit / 2)
        self.paused_until = now + self._backoff.next(at_least=error.retry_after)
        logger.info(
            "the API server sheds load, pausing writes",
            extra={"pause": round(self.paused_until - now, 3), "concurrency": self.limit, "waiting": self.waiting},
        )

    async def _close(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that was cancelled before its first step has told nobody; `_sending` still has its write.
        left = [*self._sending.values(), *self._ready.values(), *self._behind.values()]
        for queue in (self._sending, self._ready, self._behind):
            queue.clear()
        for write in left:
            _finish(Outcome(write, error=NotSent("the dispatcher has stopped")))
        self._idle.set()


def _finish(outcome: Outcome) -> None:
    try:
        outcome.write.done(outcome)
    except Exception:
        logger.exception("the receiver of a write's outcome failed", extra={"resource": outcome.write.resource.plural})
