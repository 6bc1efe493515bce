"""Coordinators and workers as local processes on a real API server, with the rights that the chart gives them.

Each process has a service-account token of its own; a worker's is bound to a Pod object that no node runs, so that the
admission policy sees the same identity as in a cluster. Everything is waited for by watches, never by sleeping.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from localcluster.controlplane import ControlPlane
from taskmaster.api import names
from taskmaster.core.phase import TERMINAL
from taskmaster.kube.api import ApplyPatch, MergePatch
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import load_credentials
from taskmaster.kube.resource import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    PODS,
    ROLEBINDINGS,
    SECRETS,
    SERVICEACCOUNTS,
    TASKS,
    Resource,
)

Object = dict[str, Any]
SYSTEM_NAMESPACE = "taskmaster-system"
OPERATOR_ACCOUNT = "taskmaster-operator"
SECONDS = 30.0


@dataclass
class Process:
    """A program started by a test; its output is in a file."""

    name: str
    log: Path
    process: asyncio.subprocess.Process
    orderly: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL if that is not enough; the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(15):
                return await self.process.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        if self.process.returncode is None:
            self.process.kill()
        return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@dataclass
class Worker:
    """A worker: a Pod object, and the two processes that its containers would be."""

    name: str
    environment: dict[str, str]
    runner: Process
    agent: Process


@dataclass
class World:
    """One namespace of a test, and what runs for it."""

    plane: ControlPlane
    api: Client
    namespace: str
    directory: Path
    processes: list[Process] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)

    # Tasks, as their users see them.

    async def submit(self, name: str, run: Object, **spec: Any) -> Object:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": name},
            "spec": {"run": run, **spec},
        }
        return await self.api.create(TASKS, self.namespace, body)

    async def task(self, name: str) -> Object:
        return await self.api.get(TASKS, self.namespace, name)

    async def edit(self, name: str, **spec: Any) -> Object:
        return await self.api.patch(TASKS, self.namespace, name, MergePatch({"spec": spec}))

    async def until(
        self, name: str, wanted: Callable[[Object], bool], *, resource: Resource = TASKS, seconds: float = SECONDS
    ) -> Object:
        """Return the object as soon as it is as wanted."""
        seen: Object = {}
        try:
            async with asyncio.timeout(seconds):
                async for seen in self.versions(name, resource=resource):
                    if wanted(seen):
                        return seen
        except TimeoutError:
            raise AssertionError(
                f"{resource.kind} {name} did not get there in {seconds} s: {seen}\n{self.logs()}"
            ) from None
        raise AssertionError("the watch ended")

    async def versions(self, name: str, *, resource: Resource = TASKS) -> AsyncIterator[Object]:
        """Yield an object, now (if it is there) and after each change."""
        selector = f"metadata.name={name}"
        found = await self.api.list(resource, namespace=self.namespace, field_selector=selector)
        for item in found.items:
            yield item
        events = self.api.watch(
            resource,
            namespace=self.namespace,
            field_selector=selector,
            resource_version=found.resource_version,
            timeout_seconds=600,
        )
        async for event in events:
            if event.type in ("ADDED", "MODIFIED"):
                yield event.object

    async def finished(self, name: str, *, seconds: float = SECONDS) -> Object:
        return await self.until(name, is_finished, seconds=seconds)

    async def gone(self, name: str, *, resource: Resource = TASKS, seconds: float = SECONDS) -> None:
        """Return as soon as there is no such object."""
        selector = f"metadata.name={name}"
        async with asyncio.timeout(seconds):
            found = await self.api.list(resource, namespace=self.namespace, field_selector=selector)
            if not found.items:
                return
            events = self.api.watch(
                resource,
                namespace=self.namespace,
                field_selector=selector,
                resource_version=found.resource_version,
                timeout_seconds=600,
            )
            async for event in events:
                if event.type == "DELETED":
                    return

    async def create_secret(self, name: str, **data: str) -> Object:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        return await self.api.create(SECRETS, self.namespace, body)

    async def create_config_map(self, name: str, **data: str) -> Object:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        return await self.api.create(CONFIGMAPS, self.namespace, body)

    # Processes.

    async def start_coordinator(self, name: str = "coordinator", **environment: str) -> Process:
        kubeconfig = await self.account_kubeconfig(SYSTEM_NAMESPACE, OPERATOR_ACCOUNT)
        process = await self.start(
            name,
            [sys.executable, "-m", "taskmaster.coordinator", "run"],
            {
                "KUBECONFIG": str(kubeconfig),
                "POD_NAME": name,
                "POD_NAMESPACE": SYSTEM_NAMESPACE,
                "TASKMASTER_NAMESPACES": self.namespace,
                "TASKMASTER_HTTP_ADDRESS": "127.0.0.1:0",
                **environment,
            },
        )
        process.orderly = True
        return process

    async def create_worker_pod(self, name: str, *, pool: str = "default", namespace: str | None = None) -> Object:
        """Create the Pod object of a worker, and what its namespace needs for it."""
        namespace = namespace or self.namespace
        await self.allow_workers(namespace)
        container = {"image": "none", "command": ["none"]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {**names.MANAGED_LABELS, names.POOL_LABEL: pool}},
            "spec": {
                "serviceAccountName": names.WORKER_SERVICE_ACCOUNT,
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", **container}, {"name": "runner", **container}],
            },
        }
        return await self.api.create(PODS, namespace, body)

    async def start_worker(self, name: str, *, slots: int = 4, pool: str = "default", **environment: str) -> Worker:
        """Start a worker and return when the coordinator may use it."""
        pod = await self.create_worker_pod(name, pool=pool)
        uid = pod["metadata"]["uid"]
        kubeconfig = await self.account_kubeconfig(self.namespace, names.WORKER_SERVICE_ACCOUNT, pod=pod)
        # A Unix socket's path is short.
        socket = self.directory / f"{name}.sock"
        given = {
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "POD_UID": uid,
            "POD_NAMESPACE": self.namespace,
            "NODE_NAME": "node-1",
            "TASKMASTER_POOL": pool,
            "TASKMASTER_SLOTS": str(slots),
            "TASKMASTER_RUNNER_SOCKET": str(socket),
            "TASKMASTER_LEASE_SECONDS": "9",
            "TASKMASTER_RENEW_SECONDS": "2",
            "TASKMASTER_DRAIN_SECONDS": "1",
            "TASKMASTER_HTTP_ADDRESS": "127.0.0.1:0",
            **environment,
        }
        worker = Worker(name, given, await self.start_runner(name, given), await self.start_agent(name, given))
        await self.until(name, is_ready_lease, resource=LEASES)
        return worker

    async def start_runner(self, name: str, environment: dict[str, str]) -> Process:
        given = {"TASKMASTER_RUNNER_SOCKET": environment["TASKMASTER_RUNNER_SOCKET"], "PYTHONPATH": ""}
        return await self.start(f"{name}-runner", [sys.executable, "-m", "taskmaster_worker.runner"], given)

    async def start_agent(self, name: str, environment: dict[str, str]) -> Process:
        return await self.start(f"{name}-agent", [sys.executable, "-m", "taskmaster_worker.agent"], environment)

    async def start(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        path = self.directory / f"{name}-{len(self.processes)}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TASKMASTER_", "POD_"))}
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**inherited, **environment}
            )
        started = Process(name, path, process)
        self.processes.append(started)
        return started

    def logs(self) -> str:
        """The end of every process's output, for the message of a failed test."""
        return "\n".join(
            f"--- {process.name} (pid {process.pid}, exit {process.process.returncode})\n"
            + "\n".join(process.log.read_text(errors="replace").splitlines()[-20:])
            for process in self.processes
        )

    # Rights.

    async def allow_workers(self, namespace: str) -> None:
        """What the operator does in a namespace with a pool."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.WORKER_SERVICE_ACCOUNT}}
        subject = {"kind": "ServiceAccount", "name": names.WORKER_SERVICE_ACCOUNT, "namespace": namespace}
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": names.WORKER_SERVICE_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "taskmaster-worker"},
            "subjects": [subject],
        }
        for resource, body in ((SERVICEACCOUNTS, account), (ROLEBINDINGS, binding)):
            await self.api.patch(resource, namespace, names.WORKER_SERVICE_ACCOUNT, ApplyPatch(body, "tests"))

    async def token(self, namespace: str, account: str, *, pod: Object | None = None) -> str:
        """Return a token of a service account, bound to a Pod if one is given."""
        spec: Object = {"expirationSeconds": 3600}
        if pod is not None:
            metadata = pod["metadata"]
            spec["boundObjectRef"] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        requests = Resource("", "v1", f"serviceaccounts/{account}/token", "TokenRequest")
        answer = await self.api.create(requests, namespace, body)
        return str(answer["status"]["token"])

    async def account_kubeconfig(self, namespace: str, account: str, *, pod: Object | None = None) -> Path:
        return self.plane.kubeconfig_for_token(await self.token(namespace, account, pod=pod))

    @asynccontextmanager
    async def client(self, kubeconfig: Path) -> AsyncIterator[Client]:
        async with Client(load_credentials(kubeconfig), component="tests") as client:
            yield client

    async def writes(self) -> dict[str, int]:
        """Successful mutating requests on tasks so far, by verb and subresource, from the API server's own counters."""
        counts: dict[str, int] = {}
        for line in (await metrics(self.plane)).splitlines():
            if not line.startswith("apiserver_request_total{") or 'group="taskmaster.dev"' not in line:
                continue
            labels = dict(
                part.split("=", 1) for part in line[line.index("{") + 1 : line.index("}")].replace('"', "").split(",")
            )
            if labels["resource"] != "tasks" or labels["verb"] not in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
                continue
            if labels["code"].startswith("2"):
                key = f"{labels['verb']} {'/'.join(filter(None, ('tasks', labels['subresource'])))}"
                counts[key] = counts.get(key, 0) + int(float(line.rsplit(" ", 1)[1]))
        return counts


async def metrics(plane: ControlPlane) -> str:
    credentials = load_credentials(plane.kubeconfig)
    async with (
        aiohttp.ClientSession() as session,
        session.get(plane.url_metrics, ssl=credentials.ssl_context or True) as answer,
    ):
        return await answer.text()


def is_finished(task: Object) -> bool:
    return task.get("status", {}).get("phase") in TERMINAL


def in_phase(phase: str) -> Callable[[Object], bool]:
    return lambda task: bool(task.get("status", {}).get("phase") == phase)


def is_ready_lease(lease: Object) -> bool:
    annotations = lease["metadata"].get("annotations", {})
    return bool(annotations.get(names.STATE_ANNOTATION) == names.READY_STATE and lease["spec"].get("holderIdentity"))


@asynccontextmanager
async def opened_world(plane: ControlPlane, namespace: str, directory: Path) -> AsyncIterator[World]:
    """A world whose processes end with it; its namespace stays, since deleting it would count as writes of the next."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Client(load_credentials(plane.kubeconfig), component="tests"))
        await api.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        world = World(plane, api, namespace, directory)
        try:
            yield world
        finally:
            # Coordinators in order, so that the next test need not wait for their election Lease to expire.
            await asyncio.gather(
                *(process.stop() if process.orderly else process.kill() for process in world.processes)
            )
