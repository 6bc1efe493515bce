"""Which workers are presumed dead, judged by our own monotonic clock.

A worker is alive as long as its Lease keeps changing. How long ago it changed is measured from when *we* saw the change
(as the node lifecycle controller of Kubernetes keeps its probe timestamps): wall clocks of different machines are never
compared. While our own view is silent nobody is judged, and after the thaw everyone gets a full duration. When most
workers seem to die within one duration, the fault is more likely ours, and they get one duration more (the breaker).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BREAKER_MINIMUM: Final = 3
"""With fewer workers than this, losing "more than half of them" is no sign of a fault of our own."""


@dataclass(slots=True)
class _Pulse:
    mark: str
    duration: float
    seen: float
    last_chance: float | None = None


class Pulses:
    """When each worker's Lease was last seen to change. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._pulses: dict[str, _Pulse] = {}
        self._lost: dict[str, float] = {}
        """Workers that expired less than a duration ago, and until when that is so."""
        self._frozen = False

    def observe(self, worker: str, mark: str, duration: float, *, now: float) -> None:
        """Take note of a Lease: a sign of life if `mark` (its renew time) differs from the last one seen."""
        pulse = self._pulses.get(worker)
        if pulse is None or pulse.mark != mark:
            self._pulses[worker] = _Pulse(mark, duration, now)
            self._lost.pop(worker, None)

    def forget(self, worker: str) -> None:
        """Stop judging a worker."""
        self._pulses.pop(worker, None)

    def freeze(self) -> None:
        """Suspend judgement: our own connection is silent."""
        self._frozen = True

    def thaw(self, *, now: float) -> None:
        """Resume judgement with a full duration for everyone. Does nothing unless frozen."""
        if not self._frozen:
            return
        self._frozen = False
        for pulse in self._pulses.values():
            pulse.seen = now
            pulse.last_chance = None

    def expired(self, *, now: float) -> list[str]:
        """Return the workers whose Lease has not changed for its whole duration."""
        if self._frozen:
            return []
        silent = [worker for worker, pulse in self._pulses.items() if now - pulse.seen >= pulse.duration]
        # Renewals are spread over time, so even a fault of our own makes workers expire one by one.
        self._lost = {worker: until for worker, until in self._lost.items() if until > now}
        lost = sum(1 for worker in self._lost if worker not in self._pulses)
        everyone = len(self._pulses) + lost
        if everyone >= BREAKER_MINIMUM and (len(silent) + lost) * 2 > everyone:
            for worker in silent:
                pulse = self._pulses[worker]
                if pulse.last_chance is None:
                    pulse.last_chance = now + pulse.duration
        # Who was given a last chance keeps it, also when fewer than half are silent by now.
        expired = [worker for worker in silent if now >= (self._pulses[worker].last_chance or now)]
        self._lost.update({worker: now + self._pulses[worker].duration for worker in expired})
        return expired
