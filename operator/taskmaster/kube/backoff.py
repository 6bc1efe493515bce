"""Backoff: how long to wait before the next try.

Exponential with "equal jitter" (half fixed, half random), so that a fleet that lost its server together does not come
back together, and yet nobody hammers: full jitter may draw zero many times in a row.
"""

from random import Random


class Backoff:
    """Grows with every `next()`, starts over with `reset()`. All times in seconds."""

    def __init__(self, *, initial: float, factor: float, maximum: float, random: Random) -> None:
        self._initial = initial
        self._factor = factor
        self._maximum = maximum
        self._random = random
        self._ceiling = initial

    def next(self, *, at_least: float | None = None) -> float:
        """Return the next pause, no shorter than `at_least` (the server's Retry-After)."""
        pause = self._ceiling * (0.5 + self._random.random() / 2)
        self._ceiling = min(self._maximum, self._ceiling * self._factor)
        if at_least is None:
            return pause
        # Spread after the server's hint, too: it gives everyone the same one.
        return max(pause, at_least * (1 + self._random.random() / 10))

    def reset(self) -> None:
        """Start over: the last try succeeded."""
        self._ceiling = self._initial
