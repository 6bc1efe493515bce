"""Why a WorkerPool cannot be made real as it is."""

from __future__ import annotations


class Refused(Exception):
    """The pool cannot be made real as it is; `reason` is one typed word, the text says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
