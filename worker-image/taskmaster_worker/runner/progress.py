"""How far a task says it is: what counts as progress, and how often it is passed on."""

from __future__ import annotations

import math

from taskmaster_worker.runner.text import safe_text
from taskmaster_worker.sdk.wire import LARGEST_PROGRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from taskmaster_worker.runner.messages import ProgressValue

INTERVAL_SECONDS = 0.25
MESSAGE_CHARACTERS = 256


def parse_progress(value: Any) -> ProgressValue:
    """Return the progress in a JSON value; a longer message is cut, `null` is the same as absent.

    Raises:
        ValueError: it is no object, a number is none or out of bounds, or the message is no string.
    """
    if not isinstance(value, dict):
        raise ValueError("progress is not an object with current, total, message")
    progress: ProgressValue = {}
    for name in ("current", "total"):
        if (number := value.get(name)) is not None:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_PROGRESS:
                raise ValueError(f"{name} of progress is not an integer from 0 to {LARGEST_PROGRESS}")
            progress[name] = number
    if (message := value.get("message")) is not None:
        if not isinstance(message, str):
            raise ValueError("message of progress is not a string")
        progress["message"] = safe_text(message.encode("utf-8", "replace"))[:MESSAGE_CHARACTERS]
    return progress


class ProgressGate:
    """Passes the latest value on, at most one per `INTERVAL_SECONDS`. Times are monotonic."""

    def __init__(self, send: Callable[[ProgressValue], None]) -> None:
        self._send = send
        self._waiting: ProgressValue | None = None
        self._open = -math.inf

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        return math.inf if self._waiting is None else self._open

    def offer(self, value: ProgressValue, now: float) -> None:
        """Take a value; it replaces one that still waits."""
        self._waiting = value
        self.tick(now)

    def tick(self, now: float) -> None:
        """Pass on what waits, if it is time."""
        if self._waiting is not None and now >= self._open:
            self._open = now + INTERVAL_SECONDS
            self.finish()

    def finish(self) -> None:
        """Pass on what waits, in any case."""
        if self._waiting is not None:
            value, self._waiting = self._waiting, None
            self._send(value)
