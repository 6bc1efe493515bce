"""The coordinator as a program: `python -m taskmaster.coordinator {run,apply-crds,smoke-test}`.

`run` serves health and metrics from the start, waits for leadership, leads for a term, and waits again when leadership
was lost. On SIGTERM it gives leadership up at once, so that the standby takes over within two seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import uuid
from collections.abc import Awaitable
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from taskmaster import __version__, logs
from taskmaster.coordinator import crds, smoke
from taskmaster.coordinator.health import Health
from taskmaster.coordinator.metrics import RequestMetrics, StateCollector, TaskMetrics, leader_gauge
from taskmaster.coordinator.server import application, serving
from taskmaster.coordinator.settings import Settings, from_environment
from taskmaster.coordinator.term import Term
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import CredentialsError, load_credentials
from taskmaster.kube.election import LeaderElector, Lost
from taskmaster.kube.errors import ApiError
from taskmaster.kube.resource import DEPLOYMENTS, Object

logger = logging.getLogger("taskmaster.coordinator")


async def run(settings: Settings) -> None:
    """Serve, stand by and lead until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    state = StateCollector()
    registry.register(state)
    requests, tasks, leading = RequestMetrics(registry), TaskMetrics(registry), leader_gauge(registry)
    health = Health()
    health.report("election", "waiting for the API server")
    async with (
        serving(application(health, registry), settings.http_host, settings.http_port),
        Client(load_credentials(), component="coordinator", observer=requests) as api,
    ):
        elector = LeaderElector(
            api,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=f"{settings.identity}_{uuid.uuid4()}",
            owner=await _owner(api, settings),
            lease_seconds=settings.election_lease_seconds,
        )
        while not stopping.is_set():
            health.report("election")
            # Before the election: a rollout onto too old CRDs stands still, and the operators before it go on.
            if not await _until(stopping, crds.wait(api, lambda problem: health.report("crds", problem))):
                break
            if not await _until(stopping, elector.acquire()):
                break
            leading.set(1)
            term = Term(api, settings, elector, health, observer=requests, task_metrics=tasks, state=state)
            await _lead(term, elector, stopping)
            leading.set(0)
        await elector.release()


async def _lead(term: Term, elector: LeaderElector, stopping: asyncio.Event) -> None:
    """Run one term until it is lost or we are told to stop.

    Raises:
        BaseExceptionGroup: a part of the term has failed by a bug; the process ends and is started again.
    """
    leader = asyncio.create_task(term.run(), name="term")
    holder = asyncio.create_task(elector.hold(), name="hold")
    stopper = asyncio.create_task(stopping.wait(), name="stop")
    try:
        await asyncio.wait({leader, holder, stopper}, return_when=asyncio.FIRST_COMPLETED)
        if holder.done():
            logger.error("leadership lost", extra={"error": str(holder.exception())})
        elif stopper.done():
            logger.info("stopping")
            await term.stop()
    finally:
        for task in (leader, holder, stopper):
            task.cancel()
        results = await asyncio.gather(leader, holder, stopper, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError | Lost):
            raise result


async def _until(stopping: asyncio.Event, work: Awaitable[None]) -> bool:
    """Await `work` unless told to stop before; return whether it was done."""
    worker = asyncio.ensure_future(work)
    stopper = asyncio.create_task(stopping.wait())
    await asyncio.wait({worker, stopper}, return_when=asyncio.FIRST_COMPLETED)
    stopper.cancel()
    if not worker.done():
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        return False
    worker.result()
    return True


async def _owner(api: Client, settings: Settings) -> Object | None:
    """Return the reference to our own Deployment, so that the election Lease goes with it; None when it has none."""
    if not settings.owner_deployment:
        return None
    try:
        found = await api.get(DEPLOYMENTS, settings.namespace, settings.owner_deployment)
    except ApiError as error:
        logger.warning("own Deployment not found; the election Lease will outlive it", extra={"error": str(error)})
        return None
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": found["metadata"]["name"],
        "uid": found["metadata"]["uid"],
    }


async def apply_crds(directory: Path) -> int:
    """Apply the packaged CRDs; the exit code."""
    packaged = crds.read(directory)
    async with Client(load_credentials(), component="crds") as api:
        for name in await crds.apply(api, packaged):
            print(f"applied {name}")
    return 0


async def smoke_test(namespace: str) -> int:
    """Submit a Task and wait for it; the exit code."""
    async with Client(load_credentials(), component="smoke-test") as api:
        problem = await smoke.run(api, namespace)
    print(problem or "a Task was submitted, run by a worker, and succeeded")
    return 1 if problem else 0


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m taskmaster.coordinator")
    parser.add_argument("command", choices=["run", "apply-crds", "smoke-test"])
    parser.add_argument("--version", action="version", version=__version__)
    command = parser.parse_args().command
    try:
        logs.configure(os.environ.get("TASKMASTER_LOG_LEVEL", "INFO"))
        match command:
            case "apply-crds":
                return asyncio.run(apply_crds(Path(os.environ.get("TASKMASTER_CRDS_DIR", "/opt/taskmaster/crds"))))
            case "smoke-test":
                return asyncio.run(smoke_test(os.environ.get("TASKMASTER_SMOKE_NAMESPACE", "default")))
        asyncio.run(run(from_environment(os.environ)))
    except (CredentialsError, ApiError, ValueError) as error:
        print(f"taskmaster: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
