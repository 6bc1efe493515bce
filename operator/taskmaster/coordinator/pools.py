"""Makes WorkerPools real and says how they are doing.

Level-triggered: whatever happens (a pool is edited, its Deployment is changed or deleted, a worker registers), the
pool's name is queued and its Deployment is compared and put right. Objects are applied server-side: the Deployment only
when it differs, the ServiceAccount and the RoleBinding that pools share once per namespace and term, the right to read
what a pool offers to Tasks once per edit and term. Status is written when it differs: at once to answer an edit of the
spec, else at most once in five seconds per pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError

from taskmaster.api import names
from taskmaster.api.models.workerpool import WorkerPoolSpec
from taskmaster.coordinator import conditions, worker_objects
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.refusal import Refused
from taskmaster.coordinator.settings import Settings
from taskmaster.coordinator.value_access import ValueAccess
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.core.task import Instant
from taskmaster.kube.api import Api, ApplyPatch, MergePatch
from taskmaster.kube.errors import ApiError, NotFound
from taskmaster.kube.resource import CLUSTERROLES, DEPLOYMENTS, ROLEBINDINGS, SERVICEACCOUNTS, WORKERPOOLS

logger = logging.getLogger(__name__)

FIELD_MANAGER: Final = "taskmaster"
STATUS_SECONDS: Final = 5.0
"""Between two looks at a pool's status, and so between two writes of it; what could not be put right is tried again."""

Key = tuple[str, str]
Object = dict[str, Any]


class PoolController:
    """Keeps the Deployments and the status of all WorkerPools."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        settings: Settings,
        *,
        may_write: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._api = api
        self._cache = cache
        self._settings = settings
        self._may_write = may_write
        self._clock = clock
        self._wall_clock = wall_clock
        self._pools: dict[Key, Object] = {}
        self._deployments: dict[Key, Object] = {}
        self._refusals: dict[Key, Refused] = {}
        self._value_access = ValueAccess(api, field_manager=FIELD_MANAGER)
        self._identities: set[str] = set()
        """Namespaces whose workers have their ServiceAccount and RoleBinding."""
        self._generations: dict[Key, int] = {}
        """Of each Deployment as we left it: another one means that somebody has changed it."""
        self._dirty: set[Key] = set()
        self._unsettled: set[Key] = set()
        """What stood in the way of these may be gone at the next look."""
        self._changed = asyncio.Event()

    def pool_changed(self, pool: Object, deleted: bool) -> None:
        """Take note of a WorkerPool."""
        key = _key(pool)
        if deleted or "deletionTimestamp" in pool["metadata"]:
            self._pools.pop(key, None)
            self._refusals.pop(key, None)
            self._generations.pop(key, None)
            self._value_access.forget(key)
            return
        self._pools[key] = pool
        self._mark(key)

    def deployment_changed(self, deployment: Object, deleted: bool) -> None:
        """Take note of a Deployment of workers."""
        pool = deployment["metadata"].get("labels", {}).get(names.POOL_LABEL)
        if pool is None:
            return
        key = (deployment["metadata"]["namespace"], pool)
        if deleted:
            self._deployments.pop(key, None)
        else:
            self._deployments[key] = deployment
        self._mark(key)

    async def run(self) -> None:
        """Put right what changed, and look at every status each five seconds, until cancelled."""
        next_look = self._clock() + STATUS_SECONDS
        while True:
            await changed_or_due(self._changed, max(0.0, next_look - self._clock()))
            dirty, self._dirty = self._dirty, set()
            if not self._may_write():
                self._dirty |= dirty
                next_look = self._clock() + STATUS_SECONDS
                continue
            for key in dirty:
                await self._put_right(key)
            if self._clock() >= next_look:
                for key in list(self._unsettled):
                    await self._put_right(key)
                for key in list(self._pools):
                    await self._write_status(key)
                await self._remove_unused_identities()
                next_look = self._clock() + STATUS_SECONDS

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._changed.set()

    async def _put_right(self, key: Key) -> None:
        self._unsettled.discard(key)
        pool = self._pools.get(key)
        if pool is None:
            return
        answered = pool.get("status", {}).get("observedGeneration", 0)
        try:
            await self._apply(key, pool)
            self._refusals.pop(key, None)
        except Refused as refusal:
            self._refusals[key] = refusal
            if refusal.reason != "InvalidSpec":  # which only an edit can end
                self._unsettled.add(key)
        except ApiError as error:
            logger.warning("cannot put a worker pool right", extra={"pool": "/".join(key), "error": str(error)})
            self._unsettled.add(key)
            if not 400 <= error.status < 500 or error.retriable:
                return
            self._refusals[key] = Refused("DeploymentRefused", f"the API server refused the workers: {error.message}")
        if answered != pool["metadata"]["generation"]:
            await self._write_status(key)

    async def _apply(self, key: Key, pool: Object) -> None:
        try:
            spec = WorkerPoolSpec.model_validate(pool["spec"])
        except ValidationError as error:
            raise Refused("InvalidSpec", f"the spec cannot be used: {error.errors()[0]['msg']}") from error
        if problem := worker_objects.trouble(spec):
            raise Refused("InvalidSpec", problem)
        namespace, _ = key
        await self._provide_identity(namespace)
        wanted = worker_objects.deployment(pool, spec, self._settings)
        found = await self._find_deployment(namespace, wanted["metadata"]["name"])
        if found is not None and not _owned_by(found, pool):
            raise Refused(
                "NameTaken",
                f"a Deployment {wanted['metadata']['name']} that is not ours already exists; "
                "delete it, or give the pool another name",
            )
        if found is None or self._changed_by_others(key, found) or not _same(found, wanted):
            stored = await self._api.patch(
                DEPLOYMENTS, namespace, wanted["metadata"]["name"], ApplyPatch(wanted, FIELD_MANAGER)
            )
            self._generations[key] = stored["metadata"]["generation"]
        # Last: whatever may be read, Tasks that read nothing can run.
        await self._value_access.provide(pool, spec)

    def _changed_by_others(self, key: Key, found: Object) -> bool:
        generation: int = found["metadata"]["generation"]
        return self._generations.get(key, generation) != generation

    async def _provide_identity(self, namespace: str) -> None:
        if namespace in self._identities:
            return
        try:
            role = await self._api.get(CLUSTERROLES, None, self._settings.worker_cluster_role)
        except NotFound as error:
            raise Refused(
                "RoleNotFound",
                f"the ClusterRole {self._settings.worker_cluster_role} of the workers does not exist; "
                "run `helm upgrade` to install the chart's roles again",
            ) from error
        account = worker_objects.service_account(namespace, role)
        binding = worker_objects.role_binding(namespace, role)
        for resource, body in ((SERVICEACCOUNTS, account), (ROLEBINDINGS, binding)):
            await self._api.patch(resource, namespace, body["metadata"]["name"], ApplyPatch(body, FIELD_MANAGER))
        self._identities.add(namespace)

    async def _remove_unused_identities(self) -> None:
        """Take the workers' identity from namespaces whose last pool is gone, once their last worker is."""
        used = {namespace for namespace, _ in self._pools} | {pod.namespace for pod in self._cache.pods.values()}
        for namespace in self._identities - used:
            try:
                for resource in (ROLEBINDINGS, SERVICEACCOUNTS):
                    with contextlib.suppress(NotFound):
                        await self._api.delete(resource, namespace, names.WORKER_SERVICE_ACCOUNT)
            except ApiError as error:
                logger.warning("identity of workers not removed", extra={"tenant": namespace, "error": str(error)})
                continue
            self._identities.discard(namespace)

    async def _find_deployment(self, namespace: str, name: str) -> Object | None:
        try:
            return await self._api.get(DEPLOYMENTS, namespace, name)
        except NotFound:
            return None

    async def _write_status(self, key: Key) -> None:
        pool = self._pools.get(key)
        if pool is None:
            return
        old = pool.get("status", {})
        new = self._status(key, pool)
        if new == old:
            return
        try:
            stored = await self._api.patch(
                WORKERPOOLS, key[0], key[1], MergePatch({"status": new}), subresource="status"
            )
        except ApiError as error:
            logger.info("status of a worker pool not written", extra={"pool": "/".join(key), "error": str(error)})
            return
        if self._pools.get(key) is pool:
            self._pools[key] = stored

    def _status(self, key: Key, pool: Object) -> Object:
        capacity = self._cache.tenants[key[0]].capacity if key[0] in self._cache.tenants else None
        workers = [worker for worker in capacity.workers() if worker.pool == key[1]] if capacity else []
        ready = [worker for worker in workers if worker.schedulable]
        held = {worker.pod_uid: capacity.used(worker.pod_uid) for worker in workers} if capacity else {}
        status: Object = {
            "observedGeneration": pool["metadata"]["generation"],
            "replicas": self._deployments.get(key, {}).get("status", {}).get("replicas", 0),
            "readyWorkers": len(ready),
            "busyWorkers": sum(1 for count in held.values() if count),
            "slots": sum(worker.slots for worker in ready),
            "busySlots": sum(held.values()),
            "selector": worker_objects.selector(key[1]),
        }
        status["conditions"] = [self._ready_condition(key, pool, len(ready))]
        return status

    def _ready_condition(self, key: Key, pool: Object, ready: int) -> Object:
        wanted = pool["spec"].get("replicas", 0)
        deployment = self._deployments.get(key, {})
        current = deployment.get("status", {})
        rolled_out = (
            current.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 1)
            and current.get("updatedReplicas", 0) >= wanted
            and current.get("replicas", 0) == wanted
        )
        refusal = self._refusals.get(key)
        if refusal is not None:
            holds, reason, message = False, refusal.reason, str(refusal)
        elif ready >= wanted and rolled_out:
            holds, reason, message = True, "WorkersReady", f"{ready} of {wanted} workers are ready"
        else:
            holds, reason, message = False, "WorkersStarting", f"{ready} of {wanted} workers are ready"
            if problem := self._pod_problem(key):
                reason, message = "WorkersNotStarting", f"{message}; {problem}"
            elif problem := _deployment_problem(deployment):
                reason, message = "WorkersNotCreated", f"{message}; {problem}"
        return conditions.ready(pool, holds=holds, reason=reason, message=message, now=self._wall_clock())

    def _pod_problem(self, key: Key) -> str:
        """Return why a worker of a pool does not start; empty if none is in trouble."""
        troubled = [pod for pod in self._cache.pods.values() if pod.trouble and (pod.namespace, pod.pool) == key]
        pod = min((each for each in troubled if not each.leaving), key=lambda each: each.name, default=None)
        return f"pod {pod.name}: {pod.trouble}" if pod else ""


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _owned_by(found: Object, pool: Object) -> bool:
    references = found["metadata"].get("ownerReferences", ())
    return any(reference["uid"] == pool["metadata"]["uid"] for reference in references)


def _same(found: Object, wanted: Object) -> bool:
    """Whether a Deployment was built from the same template by us and still asks for as many workers."""
    digest: str | None = found["metadata"].get("annotations", {}).get(names.TEMPLATE_HASH_ANNOTATION)
    same_template = digest == wanted["metadata"]["annotations"][names.TEMPLATE_HASH_ANNOTATION]
    return same_template and bool(found["spec"]["replicas"] == wanted["spec"]["replicas"])


def _deployment_problem(deployment: Object) -> str:
    for condition in deployment.get("status", {}).get("conditions", ()):
        failed = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        if failed or (condition["type"] == "Progressing" and condition["status"] == "False"):
            return str(condition.get("message", ""))
    return ""
