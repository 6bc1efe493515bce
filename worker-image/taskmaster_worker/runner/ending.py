"""The exit frame: what the supervisor reported, in texts that are safe and bounded."""

from __future__ import annotations

from typing import cast

from taskmaster_worker.runner.kernel import timestamp
from taskmaster_worker.runner.messages import Exit, PythonError
from taskmaster_worker.runner.spec import Report
from taskmaster_worker.runner.text import last_bytes, safe_text

ERROR_BYTES = 4096
NAME_CHARACTERS = 256


def exit_frame(attempt_id: str, report: Report, tail: str) -> Exit:
    """Return the exit frame of an attempt whose supervisor has reported."""
    frame = cast("Exit", {"type": "exit", "id": attempt_id, **report, "tail": tail})
    if "startError" in frame:
        frame["startError"] = safe_text(frame["startError"])[:ERROR_BYTES]
    if "resultError" in frame:
        frame["resultError"] = safe_text(frame["resultError"])[:ERROR_BYTES]
    if "error" in frame:
        frame["error"] = _safe(frame["error"])
    return frame


def lost_frame(attempt_id: str, *, start_time: str = "", tail: str = "", exhausted: bool = False) -> Exit:
    """Return the exit frame of an attempt whose supervisor is gone, or never was."""
    now = timestamp()
    frame = Exit(
        type="exit",
        id=attempt_id,
        exitCode=None,
        signal=None,
        startTime=start_time or now,
        endTime=now,
        tail=tail,
        supervisorLost=True,
    )
    if exhausted:
        frame["exhausted"] = True
    return frame


def _safe(error: PythonError) -> PythonError:
    return {
        **error,
        "type": _name(error["type"]),
        "types": list(map(_name, error["types"])),
        "message": safe_text(error["message"])[:ERROR_BYTES],
        "traceback": last_bytes(safe_text(error["traceback"]), ERROR_BYTES),
    }


def _name(text: str) -> str:
    return safe_text(text)[:NAME_CHARACTERS]
