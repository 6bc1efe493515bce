"""What user code raises, or is raised into it. They go by the name that user code imports them by."""

from __future__ import annotations

import math


class RetryAfter(Exception):
    """Ends the attempt as a failure whose next try, if one is left, comes after `seconds` instead of the backoff."""

    def __init__(self, seconds: float, message: str = "") -> None:
        """Round up to whole seconds.

        Raises:
            ValueError: negative, or no finite number.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"RetryAfter needs a number of seconds from 0 on, not {seconds}")
        super().__init__(message)
        self.seconds = math.ceil(seconds)

    def __reduce__(self) -> tuple[type[RetryAfter], tuple[int, str]]:
        return type(self), (self.seconds, self.args[0])


class Fail(Exception):
    """Ends the Task as failed: it is not tried again, whatever its policy says."""


class ArgumentsError(Fail):
    """`run.python.args` do not fit the function; one line per argument says why."""


class CheckpointError(Exception):
    """A checkpoint was not taken; the earlier one, if there is one, still counts."""


class Cancelled(BaseException):
    """The attempt is to stop: cancelled, timed out, suspended, or its worker drains.

    Raised once, wherever the main thread is. What has not ended when the grace is over is killed.
    """


for _class in (RetryAfter, Fail, ArgumentsError, CheckpointError, Cancelled):
    _class.__module__ = "taskmaster_worker"
