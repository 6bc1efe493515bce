"""Which part of the worker is not well, and since when.

Two readers: the Lease, which is renewed only while everything that a task needs is well (end-to-end liveness, not "a
process exists"), and `/readyz`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a part; `since` is monotonic seconds."""

    since: float
    message: str


Check = Callable[[], Trouble | None]


class Health:
    """Asks the parts.

    `vital` parts hold back the renewal of the Lease, each once its trouble is older than its patience in seconds;
    `others` only make the worker unready.
    """

    def __init__(
        self, vital: Mapping[str, tuple[Check, float]], others: Mapping[str, Check], *, clock: Callable[[], float]
    ) -> None:
        self._vital = vital
        self._others = others
        self._clock = clock

    def vital_troubles(self) -> dict[str, Trouble]:
        """Return what speaks against renewing the Lease."""
        now = self._clock()
        found = ((name, check(), patience) for name, (check, patience) in self._vital.items())
        return {name: trouble for name, trouble, patience in found if trouble and now - trouble.since >= patience}

    def parts(self) -> dict[str, Trouble | None]:
        """Return every part with its trouble."""
        checks = {**{name: check for name, (check, _) in self._vital.items()}, **self._others}
        return {name: check() for name, check in checks.items()}
