"""What a worker writes into its Lease. Pure."""

from __future__ import annotations

from typing import Any, Final

import orjson

from taskmaster import __version__
from taskmaster.api import names
from taskmaster.api.times import to_wire
from taskmaster.core.task import Holder
from taskmaster_worker.agent.identity import Settings

Object = dict[str, Any]

POOL_NAME_LABEL: Final = "pool"
"""What each worker has among its labels, besides those that its pool gives it: the name of the pool."""


def claim(settings: Settings, holder: Holder, state: str, found: Object | None, *, now: float) -> Object:
    """Return the whole Lease of a life, to be created or merged into the one that was found."""
    spec = (found or {}).get("spec") or {}
    time = to_wire(now)
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": settings.pod_name,
            "namespace": settings.namespace,
            "labels": {**names.MANAGED_LABELS, names.POOL_LABEL: settings.pool},
            "annotations": {
                names.SLOTS_ANNOTATION: str(settings.slots),
                names.VERSION_ANNOTATION: __version__,
                names.INCARNATION_ANNOTATION: holder.incarnation,
                names.POD_UID_ANNOTATION: settings.pod_uid,
                names.NODE_ANNOTATION: settings.node,
                names.STATE_ANNOTATION: state,
                names.LABELS_ANNOTATION: _json({**settings.labels, POOL_NAME_LABEL: settings.pool}),
                names.QUEUES_ANNOTATION: _json(sorted(settings.queues)),
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": settings.pod_name, "uid": settings.pod_uid}
            ],
        },
        "spec": {
            "holderIdentity": settings.pod_name,
            "leaseDurationSeconds": settings.lease_seconds,
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": 0 if found is None else (spec.get("leaseTransitions") or 0) + 1,
        },
    }


def renewal(state: str, *, now: float | None) -> Object:
    """Return a change of state, with a sign of life unless `now` is None."""
    body: Object = {"metadata": {"annotations": {names.STATE_ANNOTATION: state}}}
    return body if now is None else {**body, "spec": {"renewTime": to_wire(now)}}


def is_claim(lease: Object, holder: Holder) -> bool:
    """Whether the Lease registers exactly this life."""
    annotations = lease["metadata"].get("annotations") or {}
    return (
        (lease.get("spec") or {}).get("holderIdentity") == holder.worker
        and annotations.get(names.INCARNATION_ANNOTATION) == holder.incarnation
        and annotations.get(names.POD_UID_ANNOTATION) == holder.pod_uid
    )


def state_of(lease: Object) -> str:
    """Return the state that the Lease publishes."""
    return str((lease["metadata"].get("annotations") or {}).get(names.STATE_ANNOTATION, ""))


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
