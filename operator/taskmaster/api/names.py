"""Names that several programs must agree on: labels, annotations, containers, environment variables of user code."""

from __future__ import annotations

from typing import Final

GROUP: Final = "taskmaster.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

POOL_LABEL: Final = f"{GROUP}/pool"
"""On Deployments, Pods and Leases of workers: the WorkerPool they belong to."""

MANAGED_LABELS: Final = {
    "app.kubernetes.io/name": "taskmaster",
    "app.kubernetes.io/component": "worker",
    "app.kubernetes.io/managed-by": "taskmaster",
}

# Annotations of a worker's Lease, written by its agent.
SLOTS_ANNOTATION: Final = f"{GROUP}/slots"
VERSION_ANNOTATION: Final = f"{GROUP}/version"
INCARNATION_ANNOTATION: Final = f"{GROUP}/incarnation"
POD_UID_ANNOTATION: Final = f"{GROUP}/pod-uid"
NODE_ANNOTATION: Final = f"{GROUP}/node"
STATE_ANNOTATION: Final = f"{GROUP}/state"
LABELS_ANNOTATION: Final = f"{GROUP}/labels"
"""The worker's labels as a JSON object: what `spec.requires` of Tasks is compared with."""
QUEUES_ANNOTATION: Final = f"{GROUP}/queues"
"""The queues that the worker serves as a JSON list; empty or absent: all."""

SCHEDULE_LABEL: Final = f"{GROUP}/schedule"
"""On Tasks: the TaskSchedule they belong to."""
SCHEDULED_TIME_ANNOTATION: Final = f"{GROUP}/scheduled-time"
"""On a Task that a TaskSchedule created by time: the occurrence, without jitter and delays."""

# Written by people.
DRAIN_REQUEST_ANNOTATION: Final = f"{GROUP}/drain-request"
"""On a worker's Lease: why the worker should drain."""
RUN_NOW_ANNOTATION: Final = f"{GROUP}/run-now"
"""On a TaskSchedule: another value asks for a Task now."""
TEMPLATE_HASH_ANNOTATION: Final = f"{GROUP}/template-hash"
"""On a worker Deployment: of what it was built, so that an unchanged one is not written again."""

SCHEMA_REVISION_ANNOTATION: Final = f"{GROUP}/schema-revision"
"""On a CRD: the revision of its schema; an operator refuses to work with an older one than its own."""
SCHEMA_REVISION: Final = 3

WORKER_SERVICE_ACCOUNT: Final = "taskmaster-worker"
AGENT_CONTAINER: Final = "agent"
RUNNER_CONTAINER: Final = "runner"

TAKEOVER_HOLDER_PREFIX: Final = "taskmaster-coordinator:"
"""A worker that finds such a holder in its Lease has been declared dead: it kills everything and starts anew."""

READY_STATE: Final = "Ready"
DRAINING_STATE: Final = "Draining"
UNAVAILABLE_STATE: Final = "Unavailable"
