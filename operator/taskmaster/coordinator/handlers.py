"""kopf's part: login, and the events of the low-rate kinds.

Only plain event handlers are used. `on.create`, `on.update` and timers would annotate the objects, `on.delete` and
daemons would put finalizers on them, and a finalizer hangs `helm uninstall` when the operator goes first.
"""

from __future__ import annotations

from typing import Any, Final

import kopf

from taskmaster.api import names
from taskmaster.coordinator.pools import PoolController

RECONNECT_BACKOFFS: Final = (0.1, 0.5, 1, 2, 5, 10, *([15] * 10_000))
"""Seconds between kopf's tries after an error of the API server: practically for ever, where its default gives up."""


def registry(pools: PoolController) -> kopf.OperatorRegistry:
    """Return the handlers of one term of leadership."""
    handlers = kopf.OperatorRegistry()

    # Through the official client: a kubeconfig, or the pod's own service account. kopf calls it again after a 401.
    kopf.on.login(registry=handlers)(kopf.login_via_client)

    @kopf.on.event(names.GROUP, names.VERSION, "workerpools", registry=handlers)
    async def pool_event(event: kopf.RawEvent, **_: Any) -> None:
        pools.pool_changed(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event("apps", "v1", "deployments", labels={names.POOL_LABEL: kopf.PRESENT}, registry=handlers)
    async def deployment_event(event: kopf.RawEvent, **_: Any) -> None:
        pools.deployment_changed(dict(event["object"]), deleted=event["type"] == "DELETED")

    return handlers


def settings() -> kopf.OperatorSettings:
    """Return kopf's settings for this operator."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.networking.error_backoffs = RECONNECT_BACKOFFS
    chosen.watching.server_timeout = 300
    return chosen
