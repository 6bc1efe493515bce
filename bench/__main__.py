"""`make bench`: measures the cluster that KUBECONFIG names, prints a report, and fails when a bound is missed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass

from bench import measures
from bench.cluster import Cluster, opened
from taskmaster.api import names
from taskmaster.kube.resource import PODS

REPLICAS, SLOTS = 3, 10


@dataclass(frozen=True)
class Bound:
    """A figure that says whether we are good enough, and how it is to be read."""

    what: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the figure is within its bound."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'ok  ' if self.met else 'MISS'}  {self.what:<58} {self.value:8.2f}  ({sign} {self.limit:g})"


async def run(options: argparse.Namespace) -> list[Bound]:
    """Measure everything and print the numbers as they come."""
    # Machines change their speed from one minute to the next: what is compared with the drain is measured around it.
    async with opened("taskmaster-bench") as cluster, opened("taskmaster-bench-raw") as quiet:
        await cluster.create_pool(replicas=REPLICAS, slots=SLOTS)
        latency = await measures.latency(cluster, options.singles)
        print(f"{options.singles} single Tasks: submit to start {latency.p50 * 1000:.1f} ms p50, ", end="")
        print(f"{latency.p99 * 1000:.1f} ms p99")
        await measures.drain(cluster, 50)
        before = await measures.raw(quiet, options.tasks // 2)
        drain = await measures.drain(cluster, options.tasks)
        raw = measures.mean(before, await measures.raw(quiet, options.tasks // 2))
        print(f"API server: {raw.create_rate:.0f} creates/s, {raw.patch_rate:.0f} status PATCHes/s, ", end="")
        print(f"{raw.delete_rate:.0f} deletes/s; one at a time: create {raw.create_p50 * 1000:.1f} ms, ", end="")
        print(f"PATCH {raw.patch_p50 * 1000:.1f} ms (p50); ideal {raw.ideal_rate:.0f} Tasks/s")
        print(f"{drain.count} Tasks over {REPLICAS} workers x {SLOTS} slots: {drain.seconds:.1f} s, ", end="")
        print(f"{drain.rate:.0f} Tasks/s, {drain.writes_per_task:.3f} writes each")
        jobs = await measures.jobs(cluster, options.jobs, await worker_image(cluster))
        print(f"{options.jobs} batch Jobs with the same image: {jobs:.2f} Jobs/s")
    return [
        Bound("writes per short Task", drain.writes_per_task, 4.05, at_least=False),
        Bound("drain rate / ideal rate of this API server", drain.rate / raw.ideal_rate, 0.5, at_least=True),
        Bound("submit to start p50 / p50 of one PATCH", latency.p50 / raw.patch_p50, 5, at_least=False),
        Bound("drain rate / rate of batch Jobs", drain.rate / jobs, 20, at_least=True),
    ]


async def worker_image(cluster: Cluster) -> str:
    """Return the image that the workers of the bench run."""
    pods = await cluster.api.list(PODS, namespace=cluster.namespace, label_selector=names.POOL_LABEL)
    containers = pods.items[0]["spec"]["containers"]
    return str(next(each["image"] for each in containers if each["name"] == names.RUNNER_CONTAINER))


def main() -> int:
    """Parse the command line, measure, and judge."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Taskmaster on the cluster of KUBECONFIG.")
    parser.add_argument("--tasks", type=int, default=2_000, help="Tasks of the drain and of the raw rates")
    parser.add_argument("--singles", type=int, default=200, help="Tasks submitted one by one")
    parser.add_argument("--jobs", type=int, default=20, help="batch Jobs to compare with")
    bounds = asyncio.run(run(parser.parse_args()))
    print()
    for bound in bounds:
        print(bound)
    return 0 if all(bound.met for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
