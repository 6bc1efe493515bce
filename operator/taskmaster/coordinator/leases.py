"""What the coordinator knows of a worker's Lease: the worker it registers, and its sign of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmaster.api import decode, names
from taskmaster.core.capacity import Worker


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """One worker's Lease as cached."""

    worker: Worker
    own: bool
    """False when nobody holds it (released) or the coordinator has taken it over."""
    taken_over: bool
    """A coordinator, this one or another, has declared this life of the worker dead."""
    mark: str
    """The renew time, as text: only whether it changes matters."""
    duration_seconds: float


def worker_lease(obj: dict[str, Any]) -> WorkerLease:
    """Decode a Lease.

    Raises:
        KeyError, ValueError: it is not the Lease of a worker, or not a whole one.
    """
    spec = obj["spec"]
    holder = spec.get("holderIdentity") or ""
    return WorkerLease(
        worker=decode.worker(obj),
        own=holder == obj["metadata"]["name"],
        taken_over=holder.startswith(names.TAKEOVER_HOLDER_PREFIX),
        mark=spec["renewTime"],
        duration_seconds=float(spec["leaseDurationSeconds"]),
    )
