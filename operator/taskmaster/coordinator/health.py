"""Which part of this process is not well, and since when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from taskmaster.api.times import to_wire
from taskmaster.coordinator.cache import wall_clock
from taskmaster.core.task import Instant


@dataclass(slots=True)
class _Part:
    trouble: str
    since: Instant


class Health:
    """The parts of the process, each well or in trouble."""

    def __init__(self, *, clock: Callable[[], Instant] = wall_clock) -> None:
        self._clock = clock
        self._parts: dict[str, _Part] = {}

    def report(self, part: str, trouble: str = "") -> None:
        """Say how a part is; an empty text means well. Only a change between the two moves `since`."""
        known = self._parts.get(part)
        if known is None or bool(known.trouble) != bool(trouble):
            self._parts[part] = _Part(trouble, self._clock())
        else:
            known.trouble = trouble

    def forget(self, part: str) -> None:
        """Drop a part that has ended."""
        self._parts.pop(part, None)

    @property
    def ready(self) -> bool:
        """Whether every part is well."""
        return not any(part.trouble for part in self._parts.values())

    def body(self) -> dict[str, object]:
        """Return what `/readyz` says."""
        return {
            "ready": self.ready,
            "parts": {
                name: {
                    "ready": not part.trouble,
                    "since": to_wire(part.since),
                    **({"message": part.trouble} if part.trouble else {}),
                }
                for name, part in sorted(self._parts.items())
            },
        }
