"""`make bench`: measures the core and the cluster that KUBECONFIG names, and fails when a bound is missed.

The core comes first, in this process and another one, and needs no cluster; `--core` measures nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass

from bench import decisions, measures, memory
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


def core(options: argparse.Namespace) -> list[Bound]:
    """Measure what needs no cluster and print the numbers as they come."""
    plan = decisions.plan(quick=options.quick)
    costs = decisions.measure(plan)
    if options.quick:
        print("quick: systems are smaller than they are called, to see whether all works")
    for name in plan.loads:
        print(f"one decision, {name + ':':<26} {costs.microseconds(name):7.0f} us of processor time")
    kept = memory.measure(options.cached)
    print(f"{kept.tasks} cached Tasks: {kept.megabytes:.0f} MB, {kept.per_task:.0f} bytes each")
    ratios = [
        Bound(f"decision: {one} / {other}", costs.ratio(one, other), limit, at_least=False)
        for one, other, limit in decisions.BOUNDS
    ]
    return [*ratios, Bound(f"MB that {kept.tasks} cached Tasks take", kept.megabytes, 200, at_least=False)]


async def run(options: argparse.Namespace) -> list[Bound]:
    """Measure the cluster and print the numbers as they come."""
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
        turn = REPLICAS * SLOTS / drain.rate
        urgent = await measures.urgent(cluster, options.crowd, options.urgent)
        print(f"{options.urgent} urgent Tasks behind {options.crowd} others: submit to start ", end="")
        print(f"{urgent.p50 * 1000:.1f} ms p50, {urgent.p99 * 1000:.1f} ms p99; ", end="")
        print(f"a slot of the drain took a Task each {turn * 1000:.1f} ms")
        jobs = await measures.jobs(cluster, options.jobs, await worker_image(cluster))
        print(f"{options.jobs} batch Jobs with the same image: {jobs:.2f} Jobs/s")
    return [
        Bound("writes per short Task", drain.writes_per_task, 4.05, at_least=False),
        Bound("drain rate / ideal rate of this API server", drain.rate / raw.ideal_rate, 0.5, at_least=True),
        Bound("submit to start p50 / p50 of one PATCH", latency.p50 / raw.patch_p50, 5, at_least=False),
        Bound("urgent submit to start p99 / turn of a slot in the drain", urgent.p99 / turn, 3, at_least=False),
        Bound("drain rate / rate of batch Jobs", drain.rate / jobs, 20, at_least=True),
    ]


async def worker_image(cluster: Cluster) -> str:
    """Return the image that the workers of the bench run."""
    pods = await cluster.api.list(PODS, namespace=cluster.namespace, label_selector=names.POOL_LABEL)
    containers = pods.items[0]["spec"]["containers"]
    return str(next(each["image"] for each in containers if each["name"] == names.RUNNER_CONTAINER))


def main() -> int:
    """Parse the command line, measure, and judge."""
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure Taskmaster's core, then the KUBECONFIG cluster."
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--core", action="store_true", help="measure the core only, which needs no cluster")
    only.add_argument("--cluster", action="store_true", help="measure the cluster only")
    parser.add_argument("--quick", action="store_true", help="small systems: whether the core's bench works")
    parser.add_argument("--cached", type=int, default=100_000, help="Tasks whose memory is measured")
    parser.add_argument("--tasks", type=int, default=2_000, help="Tasks of the drain and of the raw rates")
    parser.add_argument("--singles", type=int, default=200, help="Tasks submitted one by one")
    parser.add_argument("--crowd", type=int, default=10_000, help="Tasks that wait when urgent ones come")
    parser.add_argument("--urgent", type=int, default=50, help="urgent Tasks")
    parser.add_argument("--jobs", type=int, default=20, help="batch Jobs to compare with")
    options = parser.parse_args()
    bounds = [] if options.cluster else core(options)
    if not options.core:
        bounds += asyncio.run(run(options))
    print()
    for bound in bounds:
        print(bound)
    return 0 if all(bound.met for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
