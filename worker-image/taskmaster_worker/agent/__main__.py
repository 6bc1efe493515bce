"""`python -m taskmaster_worker.agent`: run the agent; with `install-runner DIR`: copy the runner there.

Ends with 0 after a drain, with 2 when it is misconfigured. A missing API server or runner is waited for.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from random import Random

from taskmaster import __version__, logs
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import CredentialsError, load_credentials
from taskmaster_worker.agent.identity import BadSetting, Life, Settings, from_environment
from taskmaster_worker.agent.install import install_runner
from taskmaster_worker.agent.metrics import AgentMetrics
from taskmaster_worker.agent.runner_link import RunnerLink
from taskmaster_worker.agent.server import application, serving
from taskmaster_worker.agent.worker import Worker

logger = logging.getLogger("taskmaster_worker.agent")

USAGE = "usage: python -m taskmaster_worker.agent [install-runner DIR]"


async def run(settings: Settings) -> None:
    """Run until terminated and drained."""
    loop = asyncio.get_running_loop()
    clock, random, life = loop.time, Random(), Life(settings)
    metrics = AgentMetrics(clock=clock)
    async with Client(load_credentials(), component="worker", observer=metrics) as api:
        link = RunnerLink(
            settings.runner_socket,
            runner_uid=settings.runner_uid,
            incarnation=lambda: life.incarnation,
            clock=clock,
            random=random,
        )
        worker = Worker(
            settings, api, link, life=life, metrics=metrics, clock=clock, wall_clock=time.time, random=random
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.terminate)
        fields = {"worker": settings.pod_name, "pool": settings.pool, "slots": settings.slots, "version": __version__}
        logger.info("agent started", extra={**fields, "incarnation": life.incarnation})
        # What was imported lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        async with serving(application(worker.health, metrics.registry), settings.http_host, settings.http_port):
            await worker.run()
    logger.info("agent ended")


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    match arguments:
        case ["install-runner", directory]:
            try:
                install_runner(Path(directory))
            except OSError as error:
                print(f"cannot install the runner: {error}", file=sys.stderr)
                return 2
            return 0
        case []:
            pass
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    try:
        settings = from_environment(os.environ)
        logs.configure(settings.log_level)
        asyncio.run(run(settings))
    except (BadSetting, CredentialsError) as error:
        print(f"the agent cannot start: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
