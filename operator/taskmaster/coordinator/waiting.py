"""How the parts of a term sleep: until something changes, or until it is time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

SHORTEST_SECONDS: Final = 0.001
"""Clocks and timers round differently: who came back a little too early would come back at once, for ever."""


async def changed_or_due(changed: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set or the seconds are over (None: never), and clear the event."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if seconds is None else max(SHORTEST_SECONDS, seconds)):
            await changed.wait()
    changed.clear()
