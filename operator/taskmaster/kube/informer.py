"""Informer: a local copy of the server's objects and the changes to it, kept by list and watch.

The method is client-go's Reflector (`tools/cache/reflector.go`): a paged list gives a version, a watch from there gives
every change after it, bookmarks carry the version forward over quiet times, and a version that has become too old (410,
as a status or inside the stream) is answered by a new list, whose absences are the deletions that the watch missed.

What differs is chosen for a scheduler:

- Entries are keyed by **uid**. An object that was deleted and created again under its name is a deletion and an
  addition.
- Consumers get *deltas in batches*: everything that had arrived when the event loop came round is one call, so that a
  burst of a thousand events is one scheduling cycle. The `store` already contains the whole batch when the call is
  made.
- The server's resourceVersions grow within a resource type and a watch delivers them in order (KEP-5504 made comparing
  them part of the contract). So whatever is not newer than the last version of the stream is a repeat and is dropped; a
  late repeat can neither roll an object back nor raise a deleted one from the dead.
- `last_heard` says when the server last said anything. Whoever judges others by their silence must look at it first.

An informer never gives up and never dies of one bad object; old entries stay while it cannot reach the server.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final, Generic, TypeVar

from taskmaster.kube.api import Api
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import ApiError, Gone, NotFound
from taskmaster.kube.observer import NullObserver, Observer
from taskmaster.kube.resource import Object, Resource
from taskmaster.kube.store import Delta, Malformed, Store, parse_version

__all__ = ["Delta", "Informer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_SECONDS: Final = 300
"""Shortest watch; the longest is twice that. client-go's spread, so that watches do not all end at once."""

SHORT_WATCH_SECONDS: Final = 1.0
"""A watch that ends sooner than this without an event counts as a failure; client-go's "very short watch"."""


class Informer(Generic[T]):
    """Keeps `store` equal to the selected objects, each passed through `transform`.

    `transform` should keep only what is needed: the parsed object is dropped afterwards. When it raises, the object is
    skipped and counted in `skipped`; an earlier good entry of the same object stays.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        transform: Callable[[Object], T],
        on_deltas: Callable[[Sequence[Delta[T]]], None],
        page_size: int = 500,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_deltas = on_deltas
        self._page_size = page_size
        self._clock = clock
        self._random = random or Random()
        self._observer = observer or NullObserver()
        self._backoff = Backoff(initial=0.1, factor=2.0, maximum=30.0, random=self._random)
        self._store = Store(transform)
        self.synced = asyncio.Event()
        self.last_heard = clock()
        self.last_error: str | None = None

    @property
    def store(self) -> dict[str, T]:
        """The transformed objects by uid; read only."""
        return self._store.objects

    @property
    def skipped(self) -> int:
        """How many times an object could not be read."""
        return self._store.skipped

    async def run(self) -> None:
        """List and watch for ever; cancel to stop. What `on_deltas` raises ends it: that is a bug, not weather."""
        relist_because: str | None = "Started"
        while True:
            try:
                if relist_because is not None:
                    self._observer.relist(self._resource.plural, relist_because)
                    await self._list()
                    relist_because = None
                    self.synced.set()
                await self._watch()
                continue
            except ApiError as error:
                pause = self._backoff.next(at_least=error.retry_after)
                self.last_error = str(error)
                if isinstance(error, Gone | NotFound | Malformed):
                    relist_because = error.default_reason
                logger.info(
                    "watch or list failed, trying again",
                    extra={"resource": self._resource.plural, "error": str(error), "pause": round(pause, 3)},
                )
            await asyncio.sleep(pause)

    async def _list(self) -> None:
        """Bring the store to the server's present state, page by page, then drop what was on no page."""
        seen: set[str] = set()
        token, limit = "", self._page_size or None
        while True:
            try:
                page = await self._api.list(
                    self._resource,
                    namespace=self._namespace,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                    limit=limit,
                    continue_token=token,
                )
            except Gone:
                if not token:
                    raise
                # The list outlived etcd's compaction. Once more in one piece, as client-go's pager does.
                token, limit = "", None
                seen.clear()
                continue
            self.last_heard = self._clock()
            deltas: list[Delta[T]] = []
            seen.update([self._store.listed(item, deltas) for item in page.items])
            self._deliver(deltas)
            if not (token := page.continue_token):
                self._deliver(self._store.finish_list(seen, parse_version(page.resource_version)))
                return

    async def _watch(self) -> None:
        """Follow one watch to its end, handing over batches as they come.

        The pump takes in events for as long as it finds some without suspending; we run when it had to wait.
        """
        batch: list[Delta[T]] = []
        arrived = asyncio.Event()
        started = self._clock()
        pump = asyncio.create_task(self._pump(batch, arrived), name=f"watch-{self._resource.plural}")
        heard = False
        try:
            while not pump.done() or batch:
                await arrived.wait()
                arrived.clear()
                if not pump.done():
                    heard = True
                    self._recovered()
                taken = batch[:]
                batch.clear()
                self._deliver(taken)
            heard = pump.result() or heard
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await pump
        self.last_heard = self._clock()
        if not heard and self.last_heard - started < SHORT_WATCH_SECONDS:
            raise ApiError("the server ended the watch at once, without an event", reason="ShortWatch")
        self._recovered()

    async def _pump(self, batch: list[Delta[T]], arrived: asyncio.Event) -> bool:
        """Take in one watch; true if it brought anything.

        Each event is digested before the next is parsed: its dictionaries are then still in the cache, and are reused.
        """
        clock, seen, plural = self._clock, self._observer.watch_event, self._resource.plural
        hear = self._store.hear
        heard = False
        try:
            async for event in self._api.watch(
                self._resource,
                namespace=self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                resource_version=str(self._store.version),
                timeout_seconds=int(WATCH_SECONDS * (1 + self._random.random())),
            ):
                heard = True
                self.last_heard = clock()
                seen(plural)
                hear(event.type, event.object, batch)
                arrived.set()
        finally:
            arrived.set()
        return heard

    def _recovered(self) -> None:
        self._backoff.reset()
        self.last_error = None

    def _deliver(self, deltas: Sequence[Delta[T]]) -> None:
        if deltas:
            self._on_deltas(deltas)
