"""How the parts of a term sleep: until something changes, or until it is time."""

from __future__ import annotations

import asyncio
import contextlib


async def changed_or_due(changed: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set or the seconds are over (None: never), and clear the event."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
    changed.clear()
