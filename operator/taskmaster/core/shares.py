"""Shares of queues: which of them is furthest behind what its weight entitles it to.

What a queue has used is the time integral of its slots (slot-seconds), forgotten with a half-life, so that yesterday
does not count. Slots that it holds count in advance, as if each were held for `AHEAD_SECONDS`: decisions of one moment
spread by weight, and a queue with long Tasks does not look idle until they end. A queue that begins to compete starts
level with the one that is furthest behind of those that are served: it gets its share from now on, and no credit for
having been away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from taskmaster.core.task import Instant

HALF_LIFE_SECONDS: Final = 300.0
AHEAD_SECONDS: Final = 5.0

_DECAY: Final = math.log(2) / HALF_LIFE_SECONDS


@dataclass(slots=True)
class _Usage:
    slot_seconds: float = 0.0
    held: int = 0
    at: float = 0.0
    competes: bool = False
    served: bool = False
    """Whether it has got anything since it began to compete: one that fits nowhere is no measure for others."""

    def advance(self, now: float) -> None:
        """Integrate up to `now`: u' = held - decay * u."""
        seconds = now - self.at
        if seconds <= 0:  # the clock was set back: time stands still until it is back
            return
        level = self.held / _DECAY
        self.slot_seconds = level + (self.slot_seconds - level) * math.exp(-_DECAY * seconds)
        self.at = now


class Shares:
    """What the queues of a namespace have used."""

    def __init__(self) -> None:
        self._usages: dict[str, _Usage] = {}
        self._weights: dict[str, int] = {}

    def hold(self, queue: str, slots: int, *, now: Instant) -> None:
        """Note that a queue holds so many slots more; a negative number gives them back."""
        usage = self._usage(queue)
        usage.advance(now)
        usage.held += slots
        usage.served |= slots > 0

    def compete(self, weights: dict[str, int], *, now: Instant) -> None:
        """Name the queues (and their weights) that want slots now; the others do not compete."""
        self._weights = weights
        served = [queue for queue in weights if (usage := self._usage(queue)).competes and usage.served]
        # Of what they have really used: what they hold counts in advance only while they hold it, and as a debt of the
        # newcomer it would last. Short Tasks would then keep it waiting for long.
        level = min((self._used(queue, now=now) / weights[queue] for queue in served), default=None)
        for queue in weights:
            usage = self._usage(queue)
            if not usage.competes and level is not None:
                usage.slot_seconds = max(self._used(queue, now=now), level * weights[queue])
            usage.competes = True
        for queue in [queue for queue in self._usages if queue not in weights]:
            usage = self._usages[queue]
            usage.competes = usage.served = False
            if not usage.held and usage.slot_seconds * math.exp(-_DECAY * max(0.0, now - usage.at)) < 1:
                del self._usages[queue]

    def rank(self, queue: str, *, now: Instant) -> float:
        """Return what a queue has used by its weight; the smallest is next."""
        used = self._used(queue, now=now)
        return (used + AHEAD_SECONDS * self._usage(queue).held) / self._weights.get(queue, 1)

    def next(self, queues: Iterable[str], *, now: Instant) -> str:
        """Return the queue that is next; ties go by name."""
        return min(queues, key=lambda queue: (self.rank(queue, now=now), queue))

    def _used(self, queue: str, *, now: Instant) -> float:
        usage = self._usage(queue)
        usage.advance(now)
        return usage.slot_seconds

    def _usage(self, queue: str) -> _Usage:
        usage = self._usages.get(queue)
        return self._usages.setdefault(queue, _Usage()) if usage is None else usage
