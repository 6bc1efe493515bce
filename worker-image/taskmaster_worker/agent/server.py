"""The HTTP server of the agent: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from taskmaster.api.times import to_wire
from taskmaster_worker.agent.health import Health
from taskmaster_worker.agent.identity import BadSetting

logger = logging.getLogger(__name__)


def application(
    health: Health,
    registry: CollectorRegistry,
    *,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> web.Application:
    """Return the three pages. `/livez` says only that the event loop turns: a restart mends nothing else."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        now, wall = clock(), wall_clock()
        parts = {
            name: {"ready": True}
            if trouble is None
            else {"ready": False, "since": to_wire(wall - (now - trouble.since)), "message": trouble.message}
            for name, trouble in sorted(health.parts().items())
        }
        ready = all(part["ready"] for part in parts.values())
        body = orjson.dumps({"ready": ready, "parts": parts}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        return web.Response(body=body, status=200 if ready else 503, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


@asynccontextmanager
async def serving(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context lasts; yields the port, which is a free one when 0 was asked for.

    Raises:
        BadSetting: the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise BadSetting(f"TASKMASTER_HTTP_ADDRESS: cannot listen on {host}:{port}: {error.strerror}") from error
        bound: int = runner.addresses[0][1]
        logger.info("serving health and metrics", extra={"port": bound})
        yield bound
    finally:
        await asyncio.shield(runner.cleanup())
