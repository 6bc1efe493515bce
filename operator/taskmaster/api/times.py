"""Times on the wire: RFC 3339 in UTC with six fraction digits.

The API server refuses micro-times of a Lease with any other number of digits, so we write all of ours alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

from taskmaster.core.task import Instant


def to_wire(instant: float) -> str:
    """Format seconds since the epoch."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_wire(text: str) -> Instant:
    """Parse a time of the API server.

    Raises:
        ValueError: it is not an RFC 3339 time.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"the time {text!r} does not say its offset from UTC")
    return Instant(time.timestamp())
