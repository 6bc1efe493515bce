"""A token bucket: so many starts per second on average, and so many at once after a quiet time."""

from __future__ import annotations

from typing import Final

from taskmaster.core.queue import RateLimit
from taskmaster.core.task import Instant

SHORTEST_WAIT: Final = 0.001
"""Seconds that one who comes too early is told to wait at least."""


class TokenBucket:
    """Tokens of one queue. It is full at first: a coordinator does not know what its predecessor has started."""

    def __init__(self, limit: RateLimit, *, now: Instant) -> None:
        self.limit = limit
        self._tokens = float(limit.burst)
        self._at: float = now

    def take(self, *, now: Instant) -> None:
        """Spend a token; call only when `wait` is 0."""
        self._fill(now)
        self._tokens -= 1

    def wait(self, *, now: Instant) -> float:
        """Return the seconds until a token is there; 0 if one is."""
        self._fill(now)
        # Times of day have a resolution of less than a microsecond: coming back at once could be for ever.
        return 0.0 if self._tokens >= 1 - 1e-6 else max(SHORTEST_WAIT, (1 - self._tokens) / self.limit.rate)

    def change(self, limit: RateLimit, *, now: Instant) -> None:
        """Go on under another limit with the tokens that are there."""
        self._fill(now)
        self.limit = limit
        self._tokens = min(self._tokens, float(limit.burst))

    def _fill(self, now: Instant) -> None:
        seconds = now - self._at
        self._at = now  # also when the clock was set back: what it took away is not waited for
        if seconds > 0:
            self._tokens = min(float(self.limit.burst), self._tokens + seconds * self.limit.rate)
