"""An API server in memory: what the real one promises about objects, versions, conditions and watches, and nothing
else.

The rules here are synchronous and complete in themselves: a write happens between two awaits or not at all, as in etcd.
The asynchronous face that programs under test see, with its latency and its faults, is `memory_api.MemoryApi`.

The same conformance tests run against this and against a real kube-apiserver (`tests/conformance`), so what is written
here is checked there. Left out because nothing here depends on them: schemas and CEL, admission (there is a hook),
finalizers and graceful deletion, garbage collection, field ownership of server-side apply (it merges), existence of
namespaces.
"""

import asyncio
import base64
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import orjson
from tests.sim.json_patch import apply_json_patch, apply_merge_patch, copied, same
from tests.sim.selectors import Predicate, field_predicate, label_predicate

from taskmaster.kube.api import ApplyPatch, JsonPatch, MergePatch, ObjectList, Patch
from taskmaster.kube.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound
from taskmaster.kube.resource import Object, Resource

Admission = Callable[[Resource, str | None, Object | None, Object], None]
"""(resource, subresource, before, after); raises an ApiError to refuse. `before` is None for a create."""

STATUS_DEFAULTS: dict[str, Object] = {
    "tasks": {"phase": "Pending", "attempt": 0},
    "taskqueues": {"observedGeneration": 0},
    "taskschedules": {"observedGeneration": 0},
    "tasktemplates": {"observedGeneration": 0},
    "workerpools": {"observedGeneration": 0},
    "pods": {"phase": "Pending"},
    "deployments": {},
}
"""Resources with a status subresource, and the status of a new object."""

FIRST_REVISION = 1000
"""As on a server that has been running: version 1 is too old."""

GENERATIONS = {"tasks", "taskqueues", "taskschedules", "tasktemplates", "workerpools", "deployments"}


@dataclass(frozen=True, slots=True)
class Revision:
    """One stored change: `before` is None for a creation, `after` for a deletion. Objects are shared: do not change
    them."""

    number: int
    resource: Resource
    before: Object | None
    after: Object | None
    client: str


class MemoryServer:
    """Storage and rules. `history` has every revision, `writes` counts successful mutating requests by (verb,
    resource/subresource)."""

    def __init__(
        self,
        *,
        random: Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        first_revision: int = FIRST_REVISION,
    ) -> None:
        self._random = random or Random(0)
        self._now = now
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._logs: dict[str, list[Revision]] = {}
        self._pages: dict[str, list[Object]] = {}
        self.revision = first_revision
        self.compacted = first_revision
        self.history: list[Revision] = []
        self.writes: Counter[tuple[str, str]] = Counter()
        self.admission: list[Admission] = []
        self.changed = asyncio.Event()

    # ---- reading

    def read(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return copied(self._stored(resource, namespace, name))  # type: ignore[no-any-return]

    def select(
        self, resource: Resource, namespace: str | None = None, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        """All matching objects in the server's order, by namespace and name. Shared: do not change them."""
        matches = self.predicate(resource, namespace, label_selector, field_selector)
        return [item for _, item in sorted(self._objects.get(resource.plural, {}).items()) if matches(item)]

    def predicate(
        self, resource: Resource, namespace: str | None, label_selector: str, field_selector: str
    ) -> Predicate:
        labels, fields = label_predicate(label_selector), field_predicate(resource, field_selector)
        return lambda item: (
            (namespace is None or item["metadata"].get("namespace") == namespace) and labels(item) and fields(item)
        )

    def page(
        self,
        resource: Resource,
        namespace: str | None,
        label_selector: str,
        field_selector: str,
        limit: int | None,
        continue_token: str,
    ) -> ObjectList:
        """One page; all pages of a list show the state at its first."""
        if continue_token:
            token = orjson.loads(base64.b64decode(continue_token))
            version, start = token["rv"], token["start"]
            if (items := self._pages.get(version)) is None:
                raise Gone("The provided continue parameter is too old")
        else:
            items = self.select(resource, namespace, label_selector, field_selector)
            version, start = str(self.revision), 0
        end = len(items) if limit is None else start + limit
        rest = ""
        if end < len(items):
            self._pages[version] = items
            rest = base64.b64encode(orjson.dumps({"rv": version, "start": end})).decode()
        return ObjectList(copied(items[start:end]), version, rest)

    def changes_after(self, resource: Resource, revision: int) -> list[Revision]:
        """What a watch from `revision` has to tell; Gone if that is compacted away."""
        if revision < self.compacted:
            raise Gone(f"too old resource version: {revision} ({self.compacted})")
        log = self._logs.get(resource.plural, [])
        return log[bisect_right(log, revision, key=lambda change: change.number) :]

    # ---- writing

    def create(
        self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False, client: str = ""
    ) -> Object:
        item: Object = copied(body)
        if item.get("kind") != resource.kind or item.get("apiVersion") != resource.api_version:
            raise ApiError("the object's kind or apiVersion is missing or wrong", status=400, reason="BadRequest")
        metadata = item.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            suffix = "".join(self._random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
            metadata["name"] = metadata["generateName"] + suffix
        if resource.namespaced and (metadata.setdefault("namespace", namespace) != namespace or not namespace):
            raise ApiError("the namespace of the object does not match", status=400, reason="BadRequest")
        key = (namespace or "", metadata.get("name") or "")
        if not key[1]:
            raise ApiError("name or generateName is required", status=422, reason="Invalid")
        if key in self._objects.get(resource.plural, {}):
            raise AlreadyExists(f'{resource.plural} "{key[1]}" already exists')
        metadata["uid"] = str(UUID(int=self._random.getrandbits(128), version=4))
        metadata["creationTimestamp"] = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata.pop("resourceVersion", None)
        if resource.plural in GENERATIONS:
            metadata["generation"] = 1
        if resource.plural in STATUS_DEFAULTS:
            item["status"] = copied(STATUS_DEFAULTS[resource.plural])
        self._admit(resource, None, None, item)
        if not dry_run:
            self._store(resource, None, item, client)
            self.writes["create", resource.plural] += 1
        return copied(item)  # type: ignore[no-any-return]

    def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: Patch,
        *,
        subresource: str | None = None,
        client: str = "",
    ) -> Object:
        if subresource not in (None, "status") or (subresource and resource.plural not in STATUS_DEFAULTS):
            raise NotFound("the server could not find the requested resource")
        try:
            before = self._stored(resource, namespace, name)
        except NotFound:
            if not isinstance(patch, ApplyPatch) or subresource is not None:
                raise
            body = apply_merge_patch({"metadata": {"name": name}}, patch.body)
            created = self.create(resource, namespace, body, client=client)
            self.writes["create", resource.plural] -= 1
            self.writes["patch", resource.plural] += 1
            return created
        match patch:
            case JsonPatch(ops):
                patched = apply_json_patch(before, ops)
            case MergePatch(body) | ApplyPatch(body):
                patched = copied(apply_merge_patch(before, body))
        after = self._reconciled(resource, before, patched, subresource)
        self._admit(resource, subresource, before, after)
        label = f"{resource.plural}/{subresource}" if subresource else resource.plural
        self.writes["patch", label] += 1
        if same(before, after):
            return copied(before)  # type: ignore[no-any-return]  # nothing to store: same version, no event
        self._store(resource, before, after, client)
        return copied(after)  # type: ignore[no-any-return]

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        client: str = "",
    ) -> None:
        before = self._stored(resource, namespace, name)
        for key, wanted in (("uid", uid), ("resourceVersion", resource_version)):
            if wanted is not None and before["metadata"][key] != wanted:
                raise Conflict(
                    f"Precondition failed: {key} in precondition: {wanted}, in object meta: {before['metadata'][key]}"
                )
        self._record(resource, before, None, client)
        del self._objects[resource.plural][namespace or "", name]
        self.writes["delete", resource.plural] += 1

    # ---- what tests do to a server

    def compact(self) -> None:
        """Forget all history and all continue tokens: watches and lists that lag behind get a 410."""
        self._logs.clear()
        self._pages.clear()
        self.compacted = self.revision

    # ---- inside

    def _stored(self, resource: Resource, namespace: str | None, name: str) -> Object:
        try:
            return self._objects[resource.plural][namespace or "", name]
        except KeyError:
            raise NotFound(f'{resource.plural} "{name}" not found') from None

    def _reconciled(self, resource: Resource, before: Object, patched: Object, subresource: str | None) -> Object:
        """What the storage strategy makes of the patched object: each side writes its own half, the server's fields
        stay."""
        if (version := patched["metadata"].get("resourceVersion")) and version != before["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified; please apply your changes to the latest version")
        if patched["metadata"].get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
            raise Conflict("Precondition failed: UID in precondition does not match")
        if subresource == "status":
            after = {**before, "metadata": dict(before["metadata"])}
            after.pop("status", None)
            if "status" in patched:
                after["status"] = patched["status"]
            return after
        after = dict(patched)
        kept = ("uid", "resourceVersion", "creationTimestamp", "generation", "name", "namespace")
        after["metadata"] = {**patched["metadata"], **{k: v for k, v in before["metadata"].items() if k in kept}}
        if resource.plural in STATUS_DEFAULTS:
            after.pop("status", None)
            if "status" in before:
                after["status"] = before["status"]
        if resource.plural in GENERATIONS and not same(_desired(before), _desired(after)):
            after["metadata"]["generation"] += 1
        return after

    def _admit(self, resource: Resource, subresource: str | None, before: Object | None, after: Object) -> None:
        for admit in self.admission:
            admit(resource, subresource, before, after)

    def _store(self, resource: Resource, before: Object | None, after: Object, client: str) -> None:
        self._record(resource, before, after, client)
        metadata = after["metadata"]
        metadata["resourceVersion"] = str(self.revision)
        self._objects.setdefault(resource.plural, {})[metadata.get("namespace") or "", metadata["name"]] = after

    def _record(self, resource: Resource, before: Object | None, after: Object | None, client: str) -> None:
        self.revision += 1
        change = Revision(self.revision, resource, before, after, client)
        self._logs.setdefault(resource.plural, []).append(change)
        self.history.append(change)
        # Wake all watches: each waits on the event that was current when it looked.
        self.changed.set()
        self.changed = asyncio.Event()


def _desired(item: Object) -> Object:
    return {key: value for key, value in item.items() if key not in ("metadata", "status")}
