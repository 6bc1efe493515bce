"""Lets workers read the Secrets and ConfigMaps that their pool offers to Tasks (`valueFrom`), and no others.

A Role and a RoleBinding for each pool that lists names, applied when the lists change and deleted when both are empty.
They belong to the pool, so they go with it. Kubernetes lets nobody grant what he may not do himself: without the rights
that the chart's `valueFrom.enabled` gives, the API server refuses the Role.
"""

from __future__ import annotations

import contextlib
from typing import Any

from taskmaster.api.models.workerpool import WorkerPoolSpec
from taskmaster.coordinator import worker_objects
from taskmaster.coordinator.refusal import Refused
from taskmaster.kube.api import Api, ApplyPatch
from taskmaster.kube.errors import Forbidden, NotFound
from taskmaster.kube.resource import ROLEBINDINGS, ROLES, Resource

Object = dict[str, Any]
Key = tuple[str, str]


class ValueAccess:
    """What the workers of each pool may read, as we left it."""

    def __init__(self, api: Api, *, field_manager: str) -> None:
        self._api = api
        self._field_manager = field_manager
        self._provided: dict[Key, tuple[str, list[Object]]] = {}
        """The uid of each pool that is right, and what it grants."""

    async def provide(self, pool: Object, spec: WorkerPoolSpec) -> None:
        """Grant what a pool lists, and no more.

        Raises:
            Refused: the operator lacks the rights for it, or the name belongs to somebody else's Role.
        """
        namespace, name = pool["metadata"]["namespace"], pool["metadata"]["name"]
        role = worker_objects.value_role(pool, spec)
        wanted = (pool["metadata"]["uid"], role["rules"])
        if self._provided.get((namespace, name)) == wanted:
            return
        if role["rules"]:
            try:
                await self._grant(namespace, name, role, worker_objects.value_role_binding(pool))
            except Forbidden as error:
                raise Refused(
                    "ValueFromForbidden",
                    "the operator may not let workers read what secretNames and configMapNames list: install the chart "
                    f"with valueFrom.enabled=true, or empty both lists ({error.message})",
                ) from error
        else:
            await self._withdraw(namespace, name)
        self._provided[namespace, name] = wanted

    def forget(self, key: Key) -> None:
        """Take note that a pool is gone; what it granted goes with it."""
        self._provided.pop(key, None)

    async def _grant(self, namespace: str, pool: str, *objects: Object) -> None:
        for body in objects:
            resource, name = _resource(body), body["metadata"]["name"]
            found = await self._find(resource, namespace, name)
            if found is not None and not _ours(found, pool):
                raise Refused(
                    "NameTaken",
                    f"a {resource.kind} {name} that is not ours already exists; "
                    "delete it, or give the pool another name",
                )
            await self._api.patch(resource, namespace, name, ApplyPatch(body, self._field_manager))

    async def _withdraw(self, namespace: str, pool: str) -> None:
        """Delete what is ours, the Role last: as long as it is there, there may be a binding."""
        name = worker_objects.value_role_name(pool)
        # Without valueFrom.enabled we may not even look; that is no trouble of a pool that lists nothing.
        with contextlib.suppress(Forbidden):
            role = await self._find(ROLES, namespace, name)
            if role is None or not _ours(role, pool):
                return
            binding = await self._find(ROLEBINDINGS, namespace, name)
            for resource, found in ((ROLEBINDINGS, binding), (ROLES, role)):
                if found is not None and _ours(found, pool):
                    with contextlib.suppress(NotFound):
                        await self._api.delete(resource, namespace, name, uid=found["metadata"]["uid"])

    async def _find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        try:
            return await self._api.get(resource, namespace, name)
        except NotFound:
            return None


def _resource(body: Object) -> Resource:
    return ROLES if body["kind"] == ROLES.kind else ROLEBINDINGS


def _ours(found: Object, pool: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    return worker_objects.pod_labels(pool).items() <= labels.items()
