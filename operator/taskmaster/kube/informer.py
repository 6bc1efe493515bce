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
from dataclasses import dataclass
from random import Random
from typing import Final, Generic, TypeVar

from taskmaster.kube.api import Api, WatchEvent
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import ApiError, Gone, NotFound
from taskmaster.kube.observer import NullObserver, Observer
from taskmaster.kube.resource import Object, Resource

logger = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_SECONDS: Final = 300
"""Shortest watch; the longest is twice that. client-go's spread, so that watches do not all end at once."""

SHORT_WATCH_SECONDS: Final = 1.0
"""A watch that ends sooner than this without an event counts as a failure; client-go's "very short watch"."""


class MalformedEvent(ApiError):
    """The stream carried something that is not an event of an object."""

    default_reason = "Malformed"


@dataclass(frozen=True, slots=True)
class Delta(Generic[T]):
    """One change: `old` is None for an addition, `new` is None when the object has gone or left the selector."""

    old: T | None
    new: T | None


@dataclass(slots=True)
class _Known:
    name: tuple[str, str]
    version: int


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
        self._transform = transform
        self._on_deltas = on_deltas
        self._page_size = page_size
        self._clock = clock
        self._random = random or Random()
        self._observer = observer or NullObserver()
        self._backoff = Backoff(initial=0.1, factor=2.0, maximum=30.0, random=self._random)
        self._known: dict[str, _Known] = {}
        self._uids: dict[tuple[str, str], str] = {}
        self._version = 0
        self.store: dict[str, T] = {}
        self.synced = asyncio.Event()
        self.last_heard = clock()
        self.last_error: str | None = None
        self.skipped = 0

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
                    self.last_error = None
                await self._watch()
                continue
            except ApiError as error:
                pause = self._backoff.next(at_least=error.retry_after)
                self.last_error = str(error)
                if isinstance(error, Gone | NotFound | MalformedEvent):
                    relist_because = error.default_reason
                logger.info(
                    "watch or list failed, trying again",
                    extra={"resource": self._resource.plural, "error": str(error), "pause": round(pause, 3)},
                )
            await asyncio.sleep(pause)

    async def _list(self) -> None:
        """Bring the store to the server's present state, page by page, then drop what was in no page."""
        seen: set[str] = set()
        token, limit, version = "", self._page_size or None, 0
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
            for item in page.items:
                uid, known = _identify(item)
                seen.add(uid)
                self._put(uid, known, item, deltas)
            self._deliver(deltas)
            version = _version(page.resource_version)
            if not (token := page.continue_token):
                break
        gone: list[Delta[T]] = []
        for uid in [uid for uid in self._known if uid not in seen]:
            self._drop(uid, gone)
        self._deliver(gone)
        # Set, not raised: after a restore of etcd from a backup versions go back, and the list is what is true.
        self._version = version

    async def _watch(self) -> None:
        """Follow one watch to its end, handing over batches as they come.

        The pump fills `batch` as long as it finds events without suspending; it wakes us once, and we run when it had
        to wait.
        """
        batch: list[WatchEvent] = []
        arrived = asyncio.Event()
        started = self._clock()
        pump = asyncio.create_task(self._pump(batch, arrived), name=f"watch-{self._resource.plural}")
        events = 0
        try:
            while not pump.done() or batch:
                await arrived.wait()
                arrived.clear()
                if taken := batch[:]:
                    batch.clear()
                    events += len(taken)
                    self._apply(taken)
                    self._backoff.reset()
                    self.last_error = None
            pump.result()
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await pump
        if not events and self._clock() - started < SHORT_WATCH_SECONDS:
            raise ApiError("the server ended the watch at once, without an event", reason="ShortWatch")
        self._backoff.reset()

    async def _pump(self, batch: list[WatchEvent], arrived: asyncio.Event) -> None:
        clock, observer, plural = self._clock, self._observer, self._resource.plural
        try:
            async for event in self._api.watch(
                self._resource,
                namespace=self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                resource_version=str(self._version),
                timeout_seconds=int(WATCH_SECONDS * (1 + self._random.random())),
            ):
                self.last_heard = clock()
                batch.append(event)
                arrived.set()
                observer.watch_event(plural)
        finally:
            arrived.set()

    def _apply(self, events: Sequence[WatchEvent]) -> None:
        deltas: list[Delta[T]] = []
        try:
            for event in events:
                if event.type == "BOOKMARK":
                    self._version = max(self._version, _version(_metadata(event.object).get("resourceVersion")))
                    continue
                uid, known = _identify(event.object)
                if known.version <= self._version:
                    continue
                self._version = known.version
                if event.type == "DELETED":
                    self._drop(uid, deltas)
                elif event.type in ("ADDED", "MODIFIED"):
                    self._put(uid, known, event.object, deltas)
                else:
                    raise MalformedEvent(f"unknown event type {event.type!r}")
        finally:
            self._deliver(deltas)

    def _put(self, uid: str, known: _Known, item: Object, deltas: list[Delta[T]]) -> None:
        before = self._known.get(uid)
        if before is not None and before.version == known.version:
            return
        if before is None and (namesake := self._uids.get(known.name)) is not None:
            self._drop(namesake, deltas)
        try:
            new = self._transform(item)
        except Exception:
            # Whatever a stranger wrote into an object must not stop the others.
            self.skipped += 1
            logger.warning(
                "object skipped: it could not be read",
                extra={"resource": self._resource.plural, "object": "/".join(known.name)},
                exc_info=True,
            )
            return
        self._known[uid] = known
        self._uids[known.name] = uid
        deltas.append(Delta(self.store.get(uid), new))
        self.store[uid] = new

    def _drop(self, uid: str, deltas: list[Delta[T]]) -> None:
        known = self._known.pop(uid, None)
        if known is None:
            return
        if self._uids.get(known.name) == uid:
            del self._uids[known.name]
        deltas.append(Delta(self.store.pop(uid), None))

    def _deliver(self, deltas: Sequence[Delta[T]]) -> None:
        if deltas:
            self._on_deltas(deltas)


def _metadata(item: Object) -> Object:
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        raise MalformedEvent("object without metadata")
    return metadata


def _identify(item: Object) -> tuple[str, _Known]:
    metadata = _metadata(item)
    uid, name = metadata.get("uid"), metadata.get("name")
    if not isinstance(uid, str) or not isinstance(name, str):
        raise MalformedEvent("object without uid or name")
    return uid, _Known((metadata.get("namespace") or "", name), _version(metadata.get("resourceVersion")))


def _version(text: object) -> int:
    try:
        return int(text)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        raise MalformedEvent(f"resourceVersion {text!r} is not a number") from None
