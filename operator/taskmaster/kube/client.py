"""The HTTP client: `Api` over one pool of kept-alive connections.

aiohttp with orjson, nothing else: parsing is where an informer's time goes, and the official client's models cost ten
times as much. Requests have explicit limits and exactly one attempt; a connection that fails or times out is
`Unanswered`, because from here one cannot know whether a write was applied.

A watch is read in chunks as they arrive and split at newlines: no time-out object, no task and no copy per event. It
may be silent for as long as the server's bookmarks are apart (about a minute), not longer; TCP keep-alive finds a dead
peer earlier, as client-go's HTTP/2 pings do (after 30 s, then 15 s).
"""

import asyncio
import io
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final
from weakref import WeakSet

import aiohttp
import orjson

from taskmaster import __version__
from taskmaster.kube.answers import refusal, stored_object, unanswered, watch_event
from taskmaster.kube.api import Api, ApplyPatch, JsonPatch, MergePatch, ObjectList, Patch, WatchEvent
from taskmaster.kube.credentials import Credentials, CredentialsError
from taskmaster.kube.errors import ApiError, Unauthorized
from taskmaster.kube.observer import NullObserver, Observer
from taskmaster.kube.resource import Object, Resource

CONNECT_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 30.0
WATCH_SILENCE_SECONDS: Final = 90.0
"""Longest silence of a watch: the server sends a bookmark about every 60 s."""
KEEPALIVE_SECONDS: Final = 60.0
"""Idle connections are dropped before the server (90 s in Go) or a load balancer in between does it."""
READ_BUFFER_BYTES: Final = 1 << 20

CLOSE_SECONDS: Final = 1.0
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_CONTENT_TYPES: Final[dict[type[Patch], str]] = {
    JsonPatch: "application/json-patch+json",
    MergePatch: "application/merge-patch+json",
    ApplyPatch: "application/apply-patch+yaml",
}


class Client(Api):
    """Async context manager; `component` goes into the user agent (`taskmaster-coordinator/0.1.0`)."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        component: str,
        observer: Observer | None = None,
        request_seconds: float = REQUEST_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
        watch_silence_seconds: float = WATCH_SILENCE_SECONDS,
    ) -> None:
        self._credentials = credentials
        self._observer = observer or NullObserver()
        self._user_agent = f"taskmaster-{component}/{__version__}"
        self._request_timeout = aiohttp.ClientTimeout(total=request_seconds, sock_connect=connect_seconds)
        self._watch_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_seconds, sock_read=watch_silence_seconds
        )
        self._opened: aiohttp.ClientSession | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    async def __aenter__(self) -> "Client":
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._credentials.ssl_context or True,
                limit=0,  # the dispatcher bounds what is in flight; a limit here could starve a Lease behind watches
                keepalive_timeout=KEEPALIVE_SECONDS,
                socket_factory=self._socket,
            ),
            headers={
                "User-Agent": self._user_agent,
                "Accept": "application/json",
                # The server would spend its CPU on gzip for lists over 128 KiB; the network is near.
                "Accept-Encoding": "identity",
            },
            timeout=self._request_timeout,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()
        # A watch that was just left closes its connection in the background, and the session does not wait for that.
        # Without this wait a loop that ends now would leave it open.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while any(sock.fileno() != -1 for sock in self._sockets):  # noqa: ASYNC110 - nothing tells us
                    await asyncio.sleep(0.001)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError("the client is not open: use `async with`")
        return self._opened

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int | None = None,
        continue_token: str = "",
    ) -> ObjectList:
        """Return one page."""
        params = _selectors(label_selector, field_selector)
        if limit is not None:
            params["limit"] = str(limit)
        if continue_token:
            params["continue"] = continue_token
        body = await self._request("list", "GET", resource, resource.path(namespace), params)
        metadata = body.get("metadata") or {}
        return ObjectList(
            body.get("items") or [], str(metadata.get("resourceVersion") or ""), str(metadata.get("continue") or "")
        )

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Return one object."""
        return await self._request("get", "GET", resource, resource.path(namespace, name))

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        """Create an object."""
        params = {"dryRun": "All"} if dry_run else {}
        return await self._request("create", "POST", resource, resource.path(namespace), params, body)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Patch, *, subresource: str | None = None
    ) -> Object:
        """Patch one object."""
        params: dict[str, str] = {}
        body: object
        match patch:
            case JsonPatch(ops):
                body = list(ops)
            case MergePatch(body):
                pass
            case ApplyPatch(body, field_manager, force):
                params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = resource.path(namespace, name, subresource)
        return await self._request(
            "patch", "PATCH", resource, path, params, body, content_type=_CONTENT_TYPES[type(patch)], sub=subresource
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> None:
        """Delete one object."""
        given = {"uid": uid, "resourceVersion": resource_version}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if preconditions := {key: value for key, value in given.items() if value is not None}:
            body["preconditions"] = preconditions
        if propagation is not None:
            body["propagationPolicy"] = propagation
        await self._request("delete", "DELETE", resource, resource.path(namespace, name), body=body)

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[WatchEvent]:
        """Yield events until the server ends the stream."""
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        started = time.monotonic()
        code = 0
        try:
            headers = await self._headers()
            async with asyncio.timeout(self._request_timeout.total) as opening:
                response = await self._session.get(
                    self._credentials.server + resource.path(namespace),
                    params=params,
                    headers=headers,
                    timeout=self._watch_timeout,
                )
                opening.reschedule(None)
            code = response.status
            self._observer.request("watch", resource.plural, code, time.monotonic() - started)
            async with response:
                if code >= 400:
                    raise self._refusal(response, await response.read())
                rest = b""
                while chunk := await response.content.readany():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield watch_event(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if code == 0:
                self._observer.request("watch", resource.plural, 0, time.monotonic() - started)
            raise unanswered(error) from error

    async def _request(
        self,
        verb: str,
        method: str,
        resource: Resource,
        path: str,
        params: Mapping[str, str] | None = None,
        body: object = None,
        *,
        content_type: str = "application/json",
        sub: str | None = None,
    ) -> Object:
        label = f"{resource.plural}/{sub}" if sub else resource.plural
        started = time.monotonic()
        code = 0
        try:
            headers = await self._headers()
            if body is not None:
                headers["Content-Type"] = content_type
            async with self._session.request(
                method,
                self._credentials.server + path,
                params=params,
                headers=headers,
                # As a file: aiohttp warns about large bodies in memory, whose sending it cannot interrupt.
                data=None if body is None else io.BytesIO(orjson.dumps(body)),
            ) as response:
                answer = await response.read()
                code = response.status
                if code >= 400:
                    raise self._refusal(response, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unanswered(error) from error
        finally:
            self._observer.request(verb, label, code, time.monotonic() - started)
        return stored_object(answer)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        self._sockets.add(sock)
        return sock

    async def _headers(self) -> dict[str, str]:
        try:
            authorization = await self._credentials.authorization()
        except CredentialsError as error:
            raise Unauthorized(str(error)) from error
        return {} if authorization is None else {"Authorization": authorization}

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes) -> ApiError:
        error = refusal(response.status, response.reason or "", response.headers.get("Retry-After", ""), body)
        if isinstance(error, Unauthorized):
            self._credentials.expire()
        return error


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in given.items() if value}
