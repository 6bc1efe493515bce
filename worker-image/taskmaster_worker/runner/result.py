"""The result of an attempt: one JSON value of at most 32 KiB that every reader after us can hold exactly.

A checkpoint follows the same rules within a smaller limit.

Stricter than JSON where the way to the API server is: no NaN or infinity (`1e999` reads as one), no integer beyond 64
bits (Kubernetes would round it to a float), no half of a surrogate pair. A value that breaks a rule is refused with a
sentence; it is never cut or rounded. `null` is the same as no result.
"""

from __future__ import annotations

import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_RESULT_BYTES = 32 * 1024


class ResultError(Exception):
    """Why a result was refused."""


def checked(value: Any, *, limit: int = MAX_RESULT_BYTES) -> Any:
    """Return the value as it will read after its way through JSON (a tuple is a list then).

    Raises:
        ResultError: it is not JSON, or a rule is broken.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"not JSON: {error}") from None
    return parse(text, limit=limit)


def parse(text: str | bytes, *, limit: int = MAX_RESULT_BYTES) -> Any:
    """Return the value of a JSON text of at most `limit` bytes after checking every rule.

    Raises:
        ResultError: a rule is broken.
    """
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        if len(data) > limit:
            raise ResultError(f"larger than the {limit} bytes allowed: keep it elsewhere and say where")
        value = json.loads(data.decode("utf-8"), parse_int=_integer)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ResultError(f"not valid JSON: {error}") from None
    return value


def read_file(path: str) -> Any:
    """Return the value in the file that a task may have written; None if there is no file or it is empty.

    Raises:
        ResultError: it cannot be read, or a rule is broken.
    """
    data = read_bytes(path, variable="TASK_RESULT_FILE", limit=MAX_RESULT_BYTES)
    if not data:
        return None
    try:
        return parse(data)
    except ResultError as error:
        raise ResultError(f"content of $TASK_RESULT_FILE: {error}") from None


def read_bytes(path: str, *, variable: str, limit: int) -> bytes:
    """Return at most `limit` + 1 bytes of a file that a task may have written; none if it is missing or blank.

    The path belongs to user code, so it may by now be anything: opened without following links or waiting for a FIFO's
    other end, and only a regular file is read.

    Raises:
        ResultError: it cannot be read; `variable` is what the message calls it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ResultError(f"${variable} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ResultError(f"${variable} is not a regular file")
        data = os.read(descriptor, limit + 1)
    except OSError as error:
        raise ResultError(f"${variable} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return data if data.strip() else b""


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError("an integer beyond 64 bits: write it as a string")
    return number
