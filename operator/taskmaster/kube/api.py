"""The seam to Kubernetes: six verbs over plain dictionaries.

Everything that decides is written against this Protocol, so that the same informer, dispatcher and election run against
the real server and against the simulator's in-memory one under virtual time. An implementation never repeats a request
by itself: whether a repeat is safe depends on what was written, and only the caller knows that.

Refusals are raised as `errors.ApiError`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from taskmaster.kube.resource import Object, Resource

__all__ = ["Api", "ApplyPatch", "JsonPatch", "MergePatch", "Object", "ObjectList", "Patch", "Resource", "WatchEvent"]


@dataclass(frozen=True, slots=True)
class JsonPatch:
    """RFC 6902 operations; a failed `test` is `Unprocessable`."""

    ops: Sequence[Object]


@dataclass(frozen=True, slots=True)
class MergePatch:
    """RFC 7386. `metadata.resourceVersion` in the body makes it conditional: a mismatch is `Conflict`."""

    body: Object


@dataclass(frozen=True, slots=True)
class ApplyPatch:
    """Server-side apply; creates the object if it does not exist."""

    body: Object
    field_manager: str
    force: bool = True


Patch: TypeAlias = JsonPatch | MergePatch | ApplyPatch


@dataclass(frozen=True, slots=True)
class ObjectList:
    """One page of a list; `continue_token` is empty on the last one."""

    items: list[Object]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK. An ERROR event is raised instead."""

    type: str
    object: Object


class Api(Protocol):
    """What we ask of an API server."""

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
        """Return one page, as of now (a consistent read, not a cached one).

        Raises:
            Gone: the continue token has expired.
        """
        ...

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[WatchEvent]:
        """Yield what changed after `resource_version`, with bookmarks, for at most `timeout_seconds`.

        Events that are already here are yielded without suspending in between, so that a reader can tell a burst from
        its end.

        Raises:
            Gone: the version is too old, whether the server said so by status or in the stream.
        """
        ...

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Return one object."""
        ...

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object and return it as stored; a dry run passes admission and stores nothing."""
        ...

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Patch, *, subresource: str | None = None
    ) -> Object:
        """Patch one object and return it as stored."""
        ...

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
        """Delete one object, if it still has this uid and version (`Conflict` otherwise)."""
        ...
