"""A server on this machine that answers requests as a test says, and Tasks that ask it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from tests.unit.agent_worker import Stage, until

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Site:
    """A server on this machine: `answer` makes its answers; what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.answer: Handler = answer_ok
        self.url = ""
        self.closing = asyncio.Event()

    async def never(self, request: web.BaseRequest) -> web.StreamResponse:
        """As an answer: there is none."""
        await self.closing.wait()
        return web.Response()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        return await self.answer(request)


async def answer_ok(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"path": request.path})


def always(**arguments: Any) -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(**arguments)

    return answer


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    built = Site()
    server = web.Server(built.handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    built.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield built
    finally:
        built.closing.set()
        await runner.cleanup()


def http(url: str, **call: Any) -> dict[str, Any]:
    return {"run": {"http": {"url": url, **call}}}


async def over(on: Stage, name: str = "a", phase: str = "Succeeded") -> dict[str, Any]:
    await until(lambda: on.phase(name) == phase)
    status: dict[str, Any] = on.status(name)
    return status
