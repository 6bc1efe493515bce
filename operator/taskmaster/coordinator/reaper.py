"""Takes Tasks back from workers that are dead, or have to be presumed so.

Two ways lead here. Silence: a Lease that has not changed for its duration (`core.liveness`). Proof: the Pod is gone or
over, its agent's container has ended, or another incarnation of the agent has registered. Silence and an ended agent
are confirmed by a live GET and sealed by taking the Lease over with a conditional write; only then are the Tasks
requeued. A worker that was silent but alive finds the Lease taken, kills everything and comes back as a new
incarnation; its late writes fail on their `test` operations anyway.

Doom is remembered: an assignment that was on its way when the worker died is requeued as soon as it is seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from random import Random
from typing import Final

from taskmaster.api import names, patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.leases import WorkerLease, worker_lease
from taskmaster.coordinator.pods import WorkerPod, worker_pod
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.liveness import Pulses
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome as AttemptOutcome
from taskmaster.core.retry import next_attempt
from taskmaster.core.task import Instant, Task
from taskmaster.kube.api import Api, MergePatch, Object
from taskmaster.kube.dispatcher import Dispatcher, Outcome
from taskmaster.kube.errors import ApiError, Conflict, NotFound
from taskmaster.kube.resource import LEASES, PODS

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 1.0
"""How often silence is judged and what could not be settled is tried again."""

DOOMS_KEPT: Final = 10_000
"""How many dead workers are remembered; their Tasks were requeued long before so many more have died."""

_ANY: Final = ""


class Reaper:
    """Finds dead workers and requeues what they held."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        dispatcher: Dispatcher,
        *,
        identity: str,
        ready: Callable[[], bool],
        connected: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], Instant] = wall_clock,
        random: Random | None = None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._dispatcher = dispatcher
        self._identity = identity
        self._ready = ready
        self._connected = connected
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random or Random()
        self._pulses = Pulses()
        self._dooms: dict[tuple[str, str], str] = {}
        self._causes: dict[tuple[str, str], str] = {}
        """Why Leases are being taken over: the watch may show that before our own write is answered."""
        self._doomed_pods: set[str] = set()
        self._requeued: dict[str, str] = {}
        """The version of each Task that was last judged and handed to the dispatcher."""
        self._suspects: dict[str, tuple[str, str]] = {}
        self._changed = asyncio.Event()
        cache.condemned = lambda worker: self._doom_of(worker.pod_uid, worker.incarnation) is not None
        cache.task_listeners.append(self._on_task)
        cache.lease_listeners.append(self._on_lease)
        cache.pod_listeners.append(self._on_pod)

    async def run(self) -> None:
        """Judge and reap until cancelled."""
        while True:
            await changed_or_due(self._changed, TICK_SECONDS)
            if self._ready():
                await self.step()

    async def step(self) -> None:
        """Judge silence, look into suspects, and requeue what a dead worker still seems to hold."""
        if self._connected():
            self._pulses.thaw(now=self._clock())
        else:
            self._pulses.freeze()
        for pod_uid in self._pulses.expired(now=self._clock()):
            await self._judge(pod_uid)
        for pod_uid, (namespace, worker) in list(self._suspects.items()):
            await self._investigate(pod_uid, namespace, worker)
        self._doomed_pods = {pod_uid for pod_uid in self._doomed_pods if self._requeue_all(pod_uid)}

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if new is None or not new.held or new.holder is None:
            if old is not None:
                self._requeued.pop(old.uid, None)
            return
        if self._doom_of(new.holder.pod_uid, new.holder.incarnation) is not None:
            self._doomed_pods.add(new.holder.pod_uid)
            self._changed.set()
            return
        lease = self._cache.leases.get(new.holder.pod_uid)
        stale = lease is not None and lease.worker.incarnation != new.holder.incarnation
        if stale or new.holder.pod_uid not in self._cache.pods:
            self._suspect(new.holder.pod_uid, new.namespace, new.holder.worker)

    def _on_lease(self, old: WorkerLease | None, new: WorkerLease | None) -> None:
        if new is None:
            if old is not None:
                self._pulses.forget(old.worker.pod_uid)
            return
        worker = new.worker
        if old is not None and old.worker.pod_uid != worker.pod_uid:
            self._pulses.forget(old.worker.pod_uid)
        if new.taken_over:
            # By us, with or without an answer, or by a coordinator that may not have lived to requeue.
            cause = self._causes.get((worker.pod_uid, worker.incarnation), "the worker was declared dead")
            self._doom(worker.pod_uid, worker.incarnation, cause)
        if not new.own:
            self._pulses.forget(worker.pod_uid)
            return
        self._pulses.observe(worker.pod_uid, new.mark, new.duration_seconds, now=self._clock())
        if old is not None and old.worker.incarnation == worker.incarnation:
            return
        if old is not None:
            self._doom(worker.pod_uid, old.worker.incarnation, "the worker's agent was restarted")
        if any(task.holder and task.holder.incarnation != worker.incarnation for task in self._held(worker.pod_uid)):
            self._suspect(worker.pod_uid, worker.namespace, worker.name)

    def _on_pod(self, old: WorkerPod | None, new: WorkerPod | None) -> None:
        if new is None:
            if old is not None:
                self._doom(old.uid, _ANY, "the worker pod was deleted")
        elif new.over:
            self._doom(new.uid, _ANY, "the worker pod has ended")
        elif new.agent_down:
            self._suspect(new.uid, new.namespace, new.name)

    async def _judge(self, pod_uid: str) -> None:
        """Act on a Lease that our watch says is silent, if the API server says so, too."""
        known = self._cache.leases.get(pod_uid)
        if known is None:
            self._pulses.forget(pod_uid)
            return
        cause = f"the worker has not renewed its Lease for {known.duration_seconds:.0f} s"
        try:
            found = await self._api.get(LEASES, known.worker.namespace, known.worker.name)
            # Nothing else in it is read here: a Lease that has become unreadable is silent all the same.
            mark = str(found.get("spec", {}).get("renewTime", ""))
            if mark == known.mark:
                await self._take_over(found, known, cause)
            else:
                self._pulses.observe(pod_uid, mark, known.duration_seconds, now=self._clock())
        except NotFound:
            self._pulses.forget(pod_uid)
        except ApiError as error:
            logger.warning(
                "cannot confirm that a worker is silent", extra={"worker": known.worker.name, "error": str(error)}
            )
            self._pulses.freeze()

    async def _investigate(self, pod_uid: str, namespace: str, worker: str) -> None:
        """Settle by live reads whether a worker is dead; what cannot be settled now stays a suspect."""
        try:
            try:
                pod = worker_pod(await self._api.get(PODS, namespace, worker))
            except NotFound:
                pod = None
            if pod is None or pod.uid != pod_uid:
                self._doom(pod_uid, _ANY, "the worker pod is gone")
            elif pod.over:
                self._doom(pod_uid, _ANY, "the worker pod has ended")
            else:
                found = await self._api.get(LEASES, namespace, worker)
                lease = worker_lease(found)
                if (
                    pod.agent_down
                    and lease.own
                    and not await self._take_over(found, lease, "the worker's agent has ended")
                ):
                    return
                self._doom_other_lives(pod_uid, lease.worker.incarnation)
        except NotFound:
            # The pod lives but has no Lease: it has never registered, or somebody deleted the Lease and the agent will
            # write it again. Either way nothing is proved.
            pass
        except (ApiError, KeyError, ValueError) as error:
            logger.warning("cannot look into a worker", extra={"worker": worker, "error": str(error)})
            return
        self._suspects.pop(pod_uid, None)

    async def _take_over(self, found: Object, lease: WorkerLease, cause: str) -> bool:
        """Seal a worker's end; return False if its Lease has changed since it was `found`."""
        body = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "spec": {"holderIdentity": names.TAKEOVER_HOLDER_PREFIX + self._identity},
        }
        worker = lease.worker
        life = (worker.pod_uid, worker.incarnation)
        self._causes[life] = cause
        try:
            await self._api.patch(LEASES, worker.namespace, worker.name, MergePatch(body))
        except Conflict:
            return False
        finally:
            del self._causes[life]
        self._pulses.forget(worker.pod_uid)
        logger.warning("worker declared dead", extra={"worker": worker.name, "cause": cause})
        self._doom(worker.pod_uid, worker.incarnation, cause)
        return True

    def _suspect(self, pod_uid: str, namespace: str, worker: str) -> None:
        self._suspects[pod_uid] = (namespace, worker)
        self._changed.set()

    def _doom(self, pod_uid: str, incarnation: str, cause: str) -> None:
        self._dooms.setdefault((pod_uid, incarnation), cause)
        while len(self._dooms) > DOOMS_KEPT:
            del self._dooms[next(iter(self._dooms))]
        self._doomed_pods.add(pod_uid)
        self._cache.review(pod_uid)
        self._changed.set()

    def _doom_other_lives(self, pod_uid: str, living: str) -> None:
        """Doom each incarnation of a pod that holds Tasks and is not the registered one."""
        for task in self._held(pod_uid):
            if task.holder is not None and task.holder.incarnation != living:
                self._doom(pod_uid, task.holder.incarnation, "the worker's agent was restarted")

    def _doom_of(self, pod_uid: str, incarnation: str) -> str | None:
        return self._dooms.get((pod_uid, incarnation)) or self._dooms.get((pod_uid, _ANY))

    def _held(self, pod_uid: str) -> list[Task]:
        tasks = self._cache.tasks
        return [
            task
            for tenant in self._cache.tenants.values()
            for uid in tenant.capacity.held_by(pod_uid)
            if (task := tasks.get(uid)) is not None and task.held
        ]

    def _requeue_all(self, pod_uid: str) -> bool:
        """Requeue what dead lives of a pod hold; return whether anything of theirs is still to be seen leaving."""
        doomed = [
            (task, cause)
            for task in self._held(pod_uid)
            if task.holder and (cause := self._doom_of(pod_uid, task.holder.incarnation))
        ]
        for task, cause in doomed:
            if self._requeued.get(task.uid) != task.resource_version:
                self._requeue(task, cause)
        return bool(doomed)

    def _requeue(self, task: Task, cause: str) -> None:
        now = self._wall_clock()
        ended = patches.Ended(AttemptOutcome.WORKER_LOST, EndReason.WORKER_LOST, cause, now)
        if task.cancel:  # what its worker would have written
            ended = patches.Ended(AttemptOutcome.CANCELLED, EndReason.CANCELLED, cause, now)
        seconds_left = task.seconds_left(now)
        decision = next_attempt(task.policy, task.spent, ended, seconds_left=seconds_left, random=self._random)
        self._requeued[task.uid] = task.resource_version

        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome):
                self._requeued.pop(task.uid, None)

        self._dispatcher.submit(status_write(task, patches.requeue(task, ended, decision), done))
