"""Noticing that an attempt shows no sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StallWatch:
    """Calls `on_stall` once, when `last_sign` (a time of the loop's clock) is `seconds` ago.

    One timer at a time, set to when silence would have lasted long enough: signs of life cost nothing.
    """

    def __init__(self, seconds: float, *, last_sign: Callable[[], float], on_stall: Callable[[], None]) -> None:
        self._seconds = seconds
        self._last_sign = last_sign
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._look)

    def cancel(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        end = self._last_sign() + self._seconds
        if end <= self._loop.time():
            self._on_stall()
        else:
            self._timer = self._loop.call_at(end, self._look)
