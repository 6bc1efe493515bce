"""kopf's part: login, and the events of the low-rate kinds.

Only plain event handlers are used. `on.create`, `on.update` and timers would annotate the objects, `on.delete` and
daemons would put finalizers on them, and a finalizer hangs `helm uninstall` when the operator goes first.

kopf runs in a thread with an event loop of its own. In ours it would take over the signal handlers, and on its way out
wait for, and then cancel, every task that it did not start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

import kopf

from taskmaster.api import names
from taskmaster.coordinator.pools import PoolController
from taskmaster.coordinator.settings import Settings

RECONNECT_BACKOFFS: Final = (0.1, 0.5, 1, 2, 5, 10, *([15] * 10_000))
"""Seconds between kopf's tries after an error of the API server: practically for ever, where its default gives up."""


async def host(pools: PoolController, settings: Settings, *, started: Callable[[], None]) -> None:
    """Run kopf until cancelled; `started` and all events are called in our event loop.

    Raises:
        Exception: kopf has ended by itself, by an error of its own.
    """
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def call(function: Callable[..., None], *arguments: Any) -> None:
        loop.call_soon_threadsafe(function, *arguments)

    def work() -> None:
        asyncio.run(
            kopf.operator(
                registry=_registry(pools, call, started),
                settings=_settings(),
                # Without one kopf asks for the name of the user, which a numeric user of a container does not have.
                identity=settings.identity,  # type: ignore[arg-type] # a NewType that kopf does not export
                standalone=True,
                clusterwide=not settings.watch_namespaces,
                namespaces=settings.watch_namespaces,
                stop_flag=stop,
            )
        )

    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(thread)
    finally:
        stop.set()
        await asyncio.wait([thread])


def _registry(pools: PoolController, call: Callable[..., None], started: Callable[[], None]) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()

    # Through the official client: a kubeconfig, or the pod's own service account. kopf calls it again after a 401.
    kopf.on.login(registry=handlers)(kopf.login_via_client)

    @kopf.on.startup(registry=handlers)
    async def startup(**_: Any) -> None:
        call(started)

    @kopf.on.event(names.GROUP, names.VERSION, "workerpools", registry=handlers)
    async def pool_event(event: kopf.RawEvent, **_: Any) -> None:
        call(pools.pool_changed, dict(event["object"]), event["type"] == "DELETED")

    @kopf.on.event("apps", "v1", "deployments", labels={names.POOL_LABEL: kopf.PRESENT}, registry=handlers)
    async def deployment_event(event: kopf.RawEvent, **_: Any) -> None:
        call(pools.deployment_changed, dict(event["object"]), event["type"] == "DELETED")

    return handlers


def _settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.networking.error_backoffs = RECONNECT_BACKOFFS
    chosen.watching.server_timeout = 300
    return chosen
