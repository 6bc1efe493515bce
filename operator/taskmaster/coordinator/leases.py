"""What the coordinator knows of a worker's Lease: the worker it registers, and its sign of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmaster.api import decode
from taskmaster.core.capacity import Worker


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """One worker's Lease as cached."""

    worker: Worker
    own: bool
    """False when nobody holds it (released) or the coordinator has taken it over."""
    mark: str
    """The renew time, as text: only whether it changes matters."""
    duration_seconds: float


def worker_lease(obj: dict[str, Any]) -> WorkerLease:
    """Decode a Lease.

    Raises:
        KeyError, ValueError: it is not the Lease of a worker, or not a whole one.
    """
    spec = obj["spec"]
    return WorkerLease(
        worker=decode.worker(obj),
        own=spec.get("holderIdentity") == obj["metadata"]["name"],
        mark=spec["renewTime"],
        duration_seconds=float(spec["leaseDurationSeconds"]),
    )
