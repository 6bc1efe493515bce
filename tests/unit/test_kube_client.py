"""The HTTP client against a small server that answers as it is told: what is sent, and what is made of the answers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import orjson
import pytest
from aiohttp import web

from taskmaster.kube.api import ApplyPatch, JsonPatch, MergePatch
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import Credentials
from taskmaster.kube.errors import (
    AlreadyExists,
    ApiError,
    Gone,
    ServerError,
    TooManyRequests,
    Unanswered,
    Unauthorized,
)
from taskmaster.kube.observer import NullObserver
from taskmaster.kube.resource import PODS, TASKS, Object

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Seen(NullObserver):
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int]] = []

    def request(self, verb: str, resource_plural: str, code: int, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.requests.append((verb, resource_plural, code))


@dataclass
class Server:
    """`answer` is asked for each request; `requests` has method, path with query, headers and body."""

    url: str = ""
    answer: Answer | None = None
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        assert self.answer is not None
        return await self.answer(cast(web.Request, request))

    def says(self, status: int, body: object = None, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            data = body if isinstance(body, bytes) else orjson.dumps(body)
            return web.Response(status=status, body=data, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.answer = answer

    def streams(self, *chunks: bytes, end: str = "close") -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
                await asyncio.sleep(0.01)
            if end == "reset":
                assert request.transport is not None
                request.transport.abort()
            elif end == "hang":
                await asyncio.sleep(30)
            return response

        self.answer = answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    server.url = f"http://{host}:{port}"
    yield server
    await runner.cleanup()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def client(server: Server, seen: Seen) -> AsyncIterator[Client]:
    credentials = Credentials.from_token(server.url, None, "s3cret")
    async with Client(
        credentials, component="test", observer=seen, request_seconds=0.5, watch_silence_seconds=0.3
    ) as client:
        yield client


def event(kind: str, version: int, **more: object) -> bytes:
    item = {"metadata": {"name": "a", "uid": "u", "resourceVersion": str(version)}, **more}
    return orjson.dumps({"type": kind, "object": item}) + b"\n"


async def watch(client: Client) -> list[tuple[str, str]]:
    return [
        (event.type, event.object["metadata"]["resourceVersion"])
        async for event in client.watch(TASKS, namespace="n", resource_version="5", timeout_seconds=60)
    ]


async def test_each_verb_is_sent_as_the_server_expects_it(server: Server, client: Client, seen: Seen) -> None:
    server.says(200, {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [{"a": 1}]})
    page = await client.list(TASKS, label_selector="a=b", field_selector="c!=d", limit=5, continue_token="t")
    assert (page.items, page.resource_version, page.continue_token) == ([{"a": 1}], "7", "more")
    body: Object = {"kind": "Task"}
    await client.get(TASKS, "n", "a")
    await client.create(TASKS, "n", body, dry_run=True)
    await client.patch(TASKS, "n", "a", JsonPatch([{"op": "test"}]), subresource="status")
    await client.patch(TASKS, "n", "a", MergePatch({"x": 1}))
    await client.patch(TASKS, "n", "a", ApplyPatch({"x": 1}, "me"))
    await client.delete(TASKS, "n", "a", uid="u", resource_version="3", propagation="Background")
    await client.delete(PODS, "n", "a")
    base = "/apis/taskmaster.dev/v1alpha1"
    one = f"{base}/namespaces/n/tasks/a"
    options = {"apiVersion": "v1", "kind": "DeleteOptions"}
    sent = [
        (method, path, headers.get("Content-Type"), orjson.loads(content) if content else None)
        for method, path, headers, content in server.requests
    ]
    assert sent == [
        ("GET", f"{base}/tasks?labelSelector=a%3Db&fieldSelector=c!%3Dd&limit=5&continue=t", None, None),
        ("GET", one, None, None),
        ("POST", f"{base}/namespaces/n/tasks?dryRun=All", "application/json", body),
        ("PATCH", f"{one}/status", "application/json-patch+json", [{"op": "test"}]),
        ("PATCH", one, "application/merge-patch+json", {"x": 1}),
        ("PATCH", f"{one}?fieldManager=me&force=true", "application/apply-patch+yaml", {"x": 1}),
        (
            "DELETE",
            one,
            "application/json",
            {**options, "preconditions": {"uid": "u", "resourceVersion": "3"}, "propagationPolicy": "Background"},
        ),
        ("DELETE", "/api/v1/namespaces/n/pods/a", "application/json", options),
    ]
    assert seen.requests == [
        ("list", "tasks", 200),
        ("get", "tasks", 200),
        ("create", "tasks", 200),
        ("patch", "tasks/status", 200),
        ("patch", "tasks", 200),
        ("patch", "tasks", 200),
        ("delete", "tasks", 200),
        ("delete", "pods", 200),
    ]
    headers = server.requests[0][2]
    assert headers["User-Agent"].startswith("taskmaster-test/")
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Accept-Encoding"] == "identity"


async def test_connection_is_used_again(server: Server, client: Client) -> None:
    ports = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(status=200, body=b"{}")

    server.answer = answer
    for _ in range(5):
        await client.get(TASKS, "n", "a")
    assert len(ports) == 1


async def test_status_of_the_server_becomes_an_error(server: Server, client: Client, seen: Seen) -> None:
    server.says(409, {"kind": "Status", "reason": "AlreadyExists", "message": "it is there", "details": {"name": "a"}})
    with pytest.raises(AlreadyExists) as caught:
        await client.create(TASKS, "n", {})
    assert (caught.value.message, caught.value.details) == ("it is there", {"name": "a"})
    assert seen.requests == [("create", "tasks", 409)]


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("", None), ("٣", None)])
async def test_retry_after_is_read(server: Server, client: Client, header: str, seconds: float | None) -> None:
    server.says(429, {"kind": "Status", "message": "busy"}, Retry_After=header)
    with pytest.raises(TooManyRequests) as caught:
        await client.get(TASKS, "n", "a")
    assert caught.value.retry_after == seconds


async def test_page_of_a_proxy_is_an_error_by_its_status(server: Server, client: Client) -> None:
    server.says(502, b"<html>Bad Gateway</html>" * 100)
    with pytest.raises(ServerError) as caught:
        await client.get(TASKS, "n", "a")
    assert caught.value.status == 502
    assert caught.value.message.startswith("<html>")
    assert len(caught.value.message) <= 256


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null"])
async def test_good_status_with_nonsense_is_unanswered(server: Server, client: Client, body: bytes) -> None:
    server.says(200, body)
    with pytest.raises(Unanswered):
        await client.patch(TASKS, "n", "a", MergePatch({}))


async def test_server_that_hangs_is_unanswered_after_the_limit(server: Server, client: Client, seen: Seen) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        raise AssertionError

    server.answer = answer
    with pytest.raises(Unanswered, match="Timeout"):
        await client.get(TASKS, "n", "a")
    with pytest.raises(Unanswered, match="Timeout"):
        await watch(client)
    assert seen.requests == [("get", "tasks", 0), ("watch", "tasks", 0)]


async def test_reset_is_unanswered_and_a_patch_is_not_repeated(server: Server, client: Client) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if len(server.requests) == 1:
            return web.Response(body=b"{}")
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.answer = answer
    await client.get(TASKS, "n", "a")  # the next one goes over a connection that has been used
    with pytest.raises(Unanswered):
        await client.patch(TASKS, "n", "a", MergePatch({}))
    assert [request[0] for request in server.requests] == ["GET", "PATCH"]


async def test_refused_connection_is_unanswered(seen: Seen) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        credentials = Credentials.from_token(f"http://127.0.0.1:{taken.getsockname()[1]}", None, "x")
        async with Client(credentials, component="test", observer=seen) as client:
            with pytest.raises(Unanswered):
                await client.get(TASKS, "n", "a")
            with pytest.raises(Unanswered):
                await watch(client)
    assert seen.requests == [("get", "tasks", 0), ("watch", "tasks", 0)]


async def test_token_is_read_again_after_a_401(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    async def answer(request: web.Request) -> web.StreamResponse:
        fine = request.headers["Authorization"] == "Bearer new"
        return web.Response(status=200 if fine else 401, body=b"{}")

    server.answer = answer
    credentials = Credentials.from_token(server.url, None, token_file=path)
    async with Client(credentials, component="test") as client:
        with pytest.raises(Unauthorized):
            await client.get(TASKS, "n", "a")
        path.write_text("new")
        await client.get(TASKS, "n", "a")


async def test_missing_token_file_is_a_refusal_not_a_crash(server: Server) -> None:
    credentials = Credentials.from_token(server.url, None, token_file="/nonexistent/token")
    async with Client(credentials, component="test") as client:
        with pytest.raises(Unauthorized, match="cannot read the token file"):
            await client.get(TASKS, "n", "a")
    assert server.requests == []


async def test_watch_joins_what_the_network_split(server: Server, client: Client) -> None:
    stream = event("ADDED", 6) + event("MODIFIED", 7, data="ü\\n" * 100_000) + event("DELETED", 8)
    server.streams(*(stream[at : at + 50_001] for at in range(0, len(stream), 50_001)))
    assert await watch(client) == [("ADDED", "6"), ("MODIFIED", "7"), ("DELETED", "8")]
    path = server.requests[0][1]
    assert "watch=true" in path
    assert "resourceVersion=5" in path
    assert "timeoutSeconds=60" in path
    assert "allowWatchBookmarks=true" in path


async def test_watch_yields_a_burst_without_suspending_in_between(server: Server, client: Client) -> None:
    server.streams(b"".join(event("MODIFIED", version) for version in range(100)))
    rounds = 0

    def tick() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(tick)

    tick()
    seen_at = []
    async for _ in client.watch(TASKS, namespace="n", resource_version="5", timeout_seconds=60):
        seen_at.append(rounds)
        if len(seen_at) == 100:
            break
    assert len(set(seen_at)) <= 3


async def test_error_event_is_raised(server: Server, client: Client) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    server.streams(event("ADDED", 6), orjson.dumps({"type": "ERROR", "object": status}) + b"\n")
    with pytest.raises(Gone, match="too old"):
        await watch(client)


async def test_status_of_a_watch_is_raised(server: Server, client: Client) -> None:
    server.says(410, {"kind": "Status", "reason": "Expired"})
    with pytest.raises(Gone):
        await watch(client)


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b"{}\n", b'{"type": 1, "object": {}}\n', b'{"type": "ADDED", "object": []}\n']
)
async def test_line_that_is_no_event_ends_the_watch(server: Server, client: Client, line: bytes) -> None:
    server.streams(event("ADDED", 6), line)
    with pytest.raises(ApiError):
        await watch(client)


async def test_watch_that_is_reset_is_unanswered(server: Server, client: Client) -> None:
    server.streams(event("ADDED", 6), end="reset")
    with pytest.raises(Unanswered):
        await watch(client)


async def test_watch_that_falls_silent_is_unanswered(server: Server, client: Client) -> None:
    server.streams(event("ADDED", 6), end="hang")
    with pytest.raises(Unanswered, match="Timeout"):
        await watch(client)


async def test_leaving_a_watch_early_closes_its_connection(server: Server, client: Client) -> None:
    server.streams(event("ADDED", 6), event("ADDED", 7), end="hang")
    stream = client.watch(TASKS, namespace="n", resource_version="5", timeout_seconds=60)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    server.says(200, {})
    await client.get(TASKS, "n", "a")


async def test_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Client(Credentials.from_token("http://x", None, "x"), component="test").get(TASKS, "n", "a")
