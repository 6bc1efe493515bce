"""The memory server as programs see it: asynchronous, with latency, watches, and whatever faults a test injects.

One `MemoryApi` per program: faults and partitions are between one program and the server. Time is the event loop's, so
under `looptime` nothing here takes any.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from tests.sim.json_patch import copied
from tests.sim.memory_server import MemoryServer, Revision
from tests.sim.selectors import Predicate

from taskmaster.kube.api import Api, ObjectList, Patch, WatchEvent
from taskmaster.kube.errors import ApiError, Gone, Unanswered
from taskmaster.kube.resource import Object, Resource

R = TypeVar("R")

BOOKMARK_SECONDS = 60.0
LAST_BOOKMARK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one program; `number` counts from 1 in the order of sending."""

    number: int
    verb: str
    resource: Resource
    namespace: str | None = None
    name: str = ""
    subresource: str | None = None
    body: object = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call.

    `before` is raised instead of the call, `after` when the server has done it (`Unanswered` is then a lost answer).
    They may be any exception, so that a test can crash the program at either place. `delay` seconds pass before the
    server sees the call, `delay_answer` before the program sees the answer; infinite is a hang.
    """

    before: BaseException | None = None
    after: BaseException | None = None
    delay: float = 0.0
    delay_answer: float = 0.0


class MemoryApi(Api):
    """`Api` on a `MemoryServer`.

    `faults` is asked about every call. `events` sees each watch event and returns what to deliver in its place: nothing
    to drop it, twice the same to repeat it. `held` stops the delivery of events (a stale cache) until it is false
    again.
    """

    def __init__(
        self,
        server: MemoryServer,
        *,
        client: str = "test",
        latency: float = 0.0,
        faults: Callable[[Call], Fault | None] = lambda call: None,
        events: Callable[[WatchEvent], Iterable[WatchEvent]] = lambda event: (event,),
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self.server = server
        self.client = client
        self.latency = latency
        self.faults = faults
        self.events = events
        self.bookmark_seconds = bookmark_seconds
        self.held = False
        self.calls: list[Call] = []
        self._broken = asyncio.Event()
        self._break: ApiError | None = None
        self.open_watches = 0

    def break_watches(self, error: ApiError | None = None) -> None:
        """End all open watches: cleanly, or with an error (`Gone` is the 410 in the stream, `Unanswered` a reset)."""
        self._break = error
        self._broken.set()
        self._broken = asyncio.Event()

    def wake_watches(self) -> None:
        """Let watches look again, after `held` was changed."""
        self.server.changed.set()
        self.server.changed = asyncio.Event()

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int | None = None,
        continue_token: str = "",
    ) -> ObjectList:
        call = self._call("list", resource, namespace)
        return await self._send(
            call,
            lambda: self.server.page(resource, namespace, label_selector, field_selector, limit, continue_token),
        )

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        resource.path(namespace, name)
        call = self._call("get", resource, namespace, name)
        return await self._send(call, lambda: self.server.read(resource, namespace, name))

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        call = self._call("create", resource, namespace, body=body)
        return await self._send(
            call, lambda: self.server.create(resource, namespace, body, dry_run=dry_run, client=self.client)
        )

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Patch, *, subresource: str | None = None
    ) -> Object:
        resource.path(namespace, name, subresource)
        call = self._call("patch", resource, namespace, name, subresource, patch)
        return await self._send(
            call,
            lambda: self.server.patch(resource, namespace, name, patch, subresource=subresource, client=self.client),
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> None:
        resource.path(namespace, name)
        call = self._call("delete", resource, namespace, name)
        await self._send(
            call,
            lambda: self.server.delete(
                resource, namespace, name, uid=uid, resource_version=resource_version, client=self.client
            ),
        )

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[WatchEvent]:
        call = self._call("watch", resource, namespace)
        matches = await self._send(
            call, lambda: self.server.predicate(resource, namespace, label_selector, field_selector)
        )
        revision = int(resource_version)
        self.server.changes_after(resource, revision)
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_seconds
        bookmark = self._next_bookmark(loop.time(), ends)
        broken = self._broken
        self.open_watches += 1
        try:
            while loop.time() < ends:
                changed = self.server.changed
                if not self.held:
                    changes = self.server.changes_after(resource, revision)
                    revision = self.server.revision
                    for change in changes:
                        if (event := _event(change, matches)) is not None:
                            for delivered in self.events(event):
                                yield delivered
                    if loop.time() >= bookmark:
                        bookmark = self._next_bookmark(loop.time(), ends)
                        yield _bookmark(resource, revision)
                await _first(changed, broken, (ends if self.held else min(ends, bookmark)) - loop.time())
                if broken.is_set():
                    if self._break is not None:
                        raise self._break
                    return
        finally:
            self.open_watches -= 1

    def _next_bookmark(self, now: float, ends: float) -> float:
        """Each minute, and one 2 s before the end: the watch cache's rule."""
        last = ends - LAST_BOOKMARK_SECONDS
        return min(now + self.bookmark_seconds, last) if last > now else now + self.bookmark_seconds

    def _call(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        subresource: str | None = None,
        body: object = None,
    ) -> Call:
        call = Call(len(self.calls) + 1, verb, resource, namespace, name, subresource, body)
        self.calls.append(call)
        return call

    async def _send(self, call: Call, perform: Callable[[], R]) -> R:
        fault = self.faults(call) or Fault()
        await asyncio.sleep(self.latency / 2 + fault.delay)
        if fault.before is not None:
            raise fault.before
        answer = perform()
        await asyncio.sleep(self.latency / 2 + fault.delay_answer)
        if fault.after is not None:
            raise fault.after
        return answer


def lost_answer() -> Fault:
    """The server does it; the program hears nothing."""
    return Fault(after=Unanswered("the connection was reset"))


def in_stream_expiry() -> ApiError:
    return Gone("The resourceVersion for the provided watch is too old.")


def _event(change: Revision, matches: Predicate) -> WatchEvent | None:
    was = change.before is not None and matches(change.before)
    now = change.after is not None and matches(change.after)
    if now:
        return WatchEvent("MODIFIED" if was else "ADDED", copied(change.after))
    if was:
        # As the watch cache does: the last state that matched, with the version of the change that ended it.
        gone = copied(change.before)
        gone["metadata"]["resourceVersion"] = str(change.number)
        return WatchEvent("DELETED", gone)
    return None


def _bookmark(resource: Resource, revision: int) -> WatchEvent:
    return WatchEvent(
        "BOOKMARK",
        {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"resourceVersion": str(revision), "creationTimestamp": None},
        },
    )


async def _first(changed: asyncio.Event, broken: asyncio.Event, seconds: float) -> None:
    seconds = max(seconds, 0.001)  # a virtual clock may stop just short of the time that it was asked for
    tasks = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(broken.wait())]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
