"""The result of an attempt: one JSON value of at most 32 KiB that every reader after us can hold exactly.

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


def checked(value: Any) -> Any:
    """Return the value as it will read after its way through JSON (a tuple is a list then).

    Raises:
        ResultError: it is not JSON, or a rule is broken.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"not JSON: {error}") from None
    return parse(text)


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text after checking every rule.

    Raises:
        ResultError: a rule is broken.
    """
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        if len(data) > MAX_RESULT_BYTES:
            raise ResultError(f"larger than the {MAX_RESULT_BYTES} bytes allowed: keep it elsewhere and return where")
        value = json.loads(data.decode("utf-8"), parse_int=_integer)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ResultError(f"not valid JSON: {error}") from None
    return value


def read_file(path: str) -> Any:
    """Return the value in the file that a task may have written; None if there is no file or it is empty.

    The path belongs to user code, so it may by now be anything: opened without following links or waiting for a FIFO's
    other end, and only a regular file is read.

    Raises:
        ResultError: it cannot be read, or a rule is broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultError(f"$TASK_RESULT_FILE cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ResultError("$TASK_RESULT_FILE is not a regular file")
        data = os.read(descriptor, MAX_RESULT_BYTES + 1)
    finally:
        os.close(descriptor)
    if not data.strip():
        return None
    try:
        return parse(data)
    except ResultError as error:
        raise ResultError(f"content of $TASK_RESULT_FILE: {error}") from None


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError("an integer beyond 64 bits: write it as a string")
    return number
