"""A file that the task may write at any time: noticed when it changes, and read once more at the end.

A content that cannot be read is no error yet: it may be half written. It is tried again at the next change, and
`problem` says at the end what was wrong with the last one.
"""

from __future__ import annotations

import os

from taskmaster_worker.runner import result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class WatchedFile:
    """`content` is what it holds at first, and no news; `parse` may refuse with ResultError or ValueError."""

    def __init__(
        self, path: str, variable: str, parse: Callable[[Any], Any], *, limit: int, content: bytes = b""
    ) -> None:
        self.problem = ""
        self._path = path
        self._variable = variable
        self._parse = parse
        self._limit = limit
        self._content = content
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> Any:
        """Return the new value if the file looks different and holds another one, else None."""
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return None
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return None
        self._seen = seen
        return self.read()

    def read(self) -> Any:
        """Return the value if it is another one than before, else None."""
        try:
            data = result.read_bytes(self._path, variable=self._variable, limit=self._limit)
            if data == self._content:
                return None
            self._content = data
            if not data:
                self.problem = ""
                return None
            value = self._parse(result.parse(data, limit=self._limit))
        except (result.ResultError, ValueError) as error:
            text = str(error)
            self.problem = text if self._variable in text else f"content of ${self._variable}: {text}"
            return None
        self.problem = ""
        return value
