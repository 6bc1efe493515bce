"""kopf's part: login, and the events of the low-rate kinds.

Only plain event handlers are used. `on.create`, `on.update` and timers would annotate the objects, `on.delete` and
daemons would put finalizers on them, and a finalizer hangs `helm uninstall` when the operator goes first.

kopf runs in a thread with an event loop of its own. In ours it would take over the signal handlers, and on its way out
wait for, and then cancel, every task that it did not start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import kopf

from taskmaster.api import names
from taskmaster.coordinator.settings import Settings

RECONNECT_BACKOFFS: Final = (0.1, 0.5, 1, 2, 5, 10, *([15] * 10_000))
"""Seconds between kopf's tries after an error of the API server: practically for ever, where its default gives up."""


Listener = Callable[[dict[str, Any], bool], None]
"""Hears of an object, as it is now or as it was when it was deleted, and whether it was."""


async def host(
    kinds: Mapping[str, Listener], deployments: Listener, settings: Settings, *, started: Callable[[], None]
) -> None:
    """Run kopf until cancelled; `started` and all events are called in our event loop.

    `kinds` has a listener for each of our own low-rate kinds, by its plural; `deployments` hears of those of workers.

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
                registry=_registry(kinds, deployments, call, started),
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


def _registry(
    kinds: Mapping[str, Listener], deployments: Listener, call: Callable[..., None], started: Callable[[], None]
) -> kopf.OperatorRegistry:
    handlers = kopf.OperatorRegistry()

    # Through the official client: a kubeconfig, or the pod's own service account. kopf calls it again after a 401.
    kopf.on.login(registry=handlers)(kopf.login_via_client)

    @kopf.on.startup(registry=handlers)
    async def startup(**_: Any) -> None:
        call(started)

    def tell(listener: Listener) -> Callable[..., Any]:
        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            call(listener, dict(event["object"]), event["type"] == "DELETED")

        return on_event

    for plural, listener in kinds.items():
        kopf.on.event(names.GROUP, names.VERSION, plural, id=plural, registry=handlers)(tell(listener))
    ours = {names.POOL_LABEL: kopf.PRESENT}
    kopf.on.event("apps", "v1", "deployments", labels=ours, registry=handlers)(tell(deployments))

    return handlers


def _settings() -> kopf.OperatorSettings:
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.networking.error_backoffs = RECONNECT_BACKOFFS
    chosen.watching.server_timeout = 300
    return chosen
