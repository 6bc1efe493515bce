"""What a TaskQueue asks for, as decisions see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from taskmaster.core.policy import SAYS_NOTHING, Overrides

AGING_SECONDS = 60
"""So many seconds of waiting count as one point of priority, where a queue does not say."""


class Placement(StrEnum):
    """Which of the workers that could take a Task gets it."""

    LEAST_LOADED = "LeastLoaded"
    """The one with the smallest share of its slots taken; among equals the one whose last turn is longest ago."""
    ROUND_ROBIN = "RoundRobin"
    """The one whose last turn is longest ago."""
    BIN_PACK = "BinPack"
    """The one with the fewest free slots that are enough, so that others stay empty and can be scaled away."""


class WhenFull(StrEnum):
    """What becomes of a Task that finds its queue full."""

    WAIT = "Wait"
    """It waits outside and enters in the order of creation."""
    REJECT = "Reject"
    """It is Skipped with the reason Rejected."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: `rate` attempts per second on average, at most `burst` at once."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class Queue:
    """One TaskQueue; the defaults are those of a queue that says nothing."""

    name: str
    weight: int = 1
    max_running: int | None = None
    max_pending: int | None = None
    when_full: WhenFull = WhenFull.WAIT
    rate_limit: RateLimit | None = None
    paused: bool = False
    drain: bool = False
    placement: Placement = Placement.LEAST_LOADED
    aging_seconds: int = AGING_SECONDS
    overrides: Overrides = SAYS_NOTHING
    """Defaults for the policies of its Tasks."""

    @property
    def closed(self) -> bool:
        """Whether people have asked it to start nothing."""
        return self.paused or self.drain
