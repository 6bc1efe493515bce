"""The cluster under measurement: a namespace, pools, Tasks, and the API server's own counters."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp

from taskmaster.api import names
from taskmaster.kube.api import JsonPatch, WatchEvent
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import Credentials, load_credentials
from taskmaster.kube.errors import NotFound
from taskmaster.kube.resource import NAMESPACES, TASKS, WORKERPOOLS, Resource

Object = dict[str, Any]
MUTATING = ("POST", "PUT", "PATCH", "APPLY", "DELETE")
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)


@dataclass
class Cluster:
    """A connection and the namespace that everything happens in."""

    api: Client
    credentials: Credentials
    namespace: str

    def task(self, name: str, **spec: Any) -> Object:
        """Return the Task `true` under a name."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": name},
            "spec": {"run": {"command": ["true"]}, **spec},
        }

    async def create_pool(self, *, replicas: int, slots: int) -> None:
        """Create a pool and return when all its workers take Tasks."""
        spec = {"replicas": replicas, "slots": slots}
        body = {"apiVersion": names.API_VERSION, "kind": "WorkerPool", "metadata": {"name": "bench"}, "spec": spec}
        await self.api.create(WORKERPOOLS, self.namespace, body)
        await self.until(WORKERPOOLS, lambda pool: pool["status"].get("readyWorkers") == replicas)

    async def until(self, resource: Resource, wanted: Callable[[Object], bool], *, count: int = 1) -> None:
        """Return when `count` objects of a kind have been seen as wanted."""
        seen: set[str] = set()
        listed = await self.api.list(resource, namespace=self.namespace)
        seen.update(item["metadata"]["uid"] for item in listed.items if wanted(item))
        if len(seen) >= count:
            return
        events = self.api.watch(
            resource, namespace=self.namespace, resource_version=listed.resource_version, timeout_seconds=900
        )
        async for event in events:
            if event.type in ("ADDED", "MODIFIED") and wanted(event.object):
                seen.add(event.object["metadata"]["uid"])
                if len(seen) >= count:
                    return

    async def watch_succeeded(self) -> AsyncIterator[WatchEvent]:
        """Return events from the moment of the call on: ADDED when a Task succeeds, DELETED when it goes."""
        listed = await self.api.list(TASKS, namespace=self.namespace, limit=1)
        return self.api.watch(
            TASKS,
            namespace=self.namespace,
            field_selector="status.phase=Succeeded",
            resource_version=listed.resource_version,
            timeout_seconds=900,
        )

    async def set_message(self, name: str, message: str) -> None:
        """Make a small status PATCH, of the kind that the protocol makes."""
        operations = [
            {"op": "test", "path": "/status/phase", "value": "Pending"},
            {"op": "add", "path": "/status/message", "value": message},
        ]
        await self.api.patch(TASKS, self.namespace, name, JsonPatch(operations), subresource="status")

    async def delete_all(self, resource: Resource) -> None:
        """Delete all objects of a kind in the namespace: one request, or a few if the server takes too long for one."""
        url = self.credentials.server + resource.path(self.namespace)
        async with aiohttp.ClientSession() as session:
            while (await self.api.list(resource, namespace=self.namespace, limit=1)).items:
                async with session.delete(
                    url, ssl=self.credentials.ssl_context or True, headers=await self._headers()
                ) as answer:
                    await answer.read()
                    if answer.status != HTTPStatus.GATEWAY_TIMEOUT:
                        answer.raise_for_status()

    async def writes(self) -> int:
        """Successful mutating requests on tasks and tasks/status so far, by the API server's own count."""
        url = f"{self.credentials.server}/metrics"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=self.credentials.ssl_context or True, headers=await self._headers()) as answer,
        ):
            text = await answer.text()
        total = 0.0
        for match in _REQUEST.finditer(text):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"]))
            if labels["resource"] == "tasks" and labels["verb"] in MUTATING and labels["code"].startswith("2"):
                total += float(match["count"])
        return int(total)

    async def _headers(self) -> dict[str, str]:
        value = await self.credentials.authorization()
        return {"Authorization": value} if value else {}


@asynccontextmanager
async def opened(namespace: str) -> AsyncIterator[Cluster]:
    """A namespace of its own on the cluster that kubectl is set to; it is deleted afterwards."""
    credentials = load_credentials()
    async with Client(credentials, component="bench") as api:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await api.create(NAMESPACES, None, body)
        try:
            yield Cluster(api, credentials, namespace)
        finally:
            await api.delete(NAMESPACES, None, namespace)
            await _until_gone(api, namespace)


async def _until_gone(api: Client, namespace: str) -> None:
    try:
        while True:
            await api.get(NAMESPACES, None, namespace)
            await asyncio.sleep(0.5)
    except NotFound:
        pass


async def rate(work: Iterable[Awaitable[object]], *, concurrency: int) -> float:
    """Do all the work, at most `concurrency` pieces at a time, and return how many pieces were done per second."""
    gate = asyncio.Semaphore(concurrency)

    async def one(piece: Awaitable[object]) -> None:
        async with gate:
            await piece

    pieces = list(work)
    started = time.perf_counter()
    await asyncio.gather(*(one(piece) for piece in pieces))
    return len(pieces) / (time.perf_counter() - started)


async def latencies(work: Iterable[Awaitable[object]]) -> list[float]:
    """Do the work piece by piece and return how many seconds each took."""
    times = []
    for piece in work:
        started = time.perf_counter()
        await piece
        times.append(time.perf_counter() - started)
    return times
