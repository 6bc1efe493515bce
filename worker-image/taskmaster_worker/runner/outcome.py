"""What the task's own process wrote before it ended, as far as it can be believed: user code could have written it."""

from __future__ import annotations

import json
import os

from taskmaster_worker.runner import result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from taskmaster_worker.runner.messages import PythonError
    from taskmaster_worker.runner.spec import Outcome, Report

_OUTCOME_BYTES = 64 * 1024
_TYPES = 32
_LONGEST_RETRY_SECONDS = 2**31


def read_outcome(descriptor: int) -> Outcome:
    """Return what is in the pipe, an empty outcome if that is none."""
    try:
        outcome = json.loads(os.read(descriptor, _OUTCOME_BYTES) or b"{}")
    except (BlockingIOError, ValueError, RecursionError):  # still open outside the tree, or written over by user code
        return {}
    return outcome if isinstance(outcome, dict) else {}  # type: ignore[return-value]


def add_outcome(report: Report, outcome: Outcome, result_file: str) -> None:
    """Complete a report by the outcome and by the result, from whichever way the task has chosen."""
    if "startError" in outcome:
        report["startError"] = str(outcome["startError"])
    if "error" in outcome:
        report["error"] = _error(outcome["error"])
    if "resultError" in outcome:
        report["resultError"] = str(outcome["resultError"])
        return
    try:
        value = result.checked(outcome["result"]) if "result" in outcome else result.read_file(result_file)
    except result.ResultError as error:
        report["resultError"] = str(error)
    else:
        if value is not None:
            report["result"] = value


def _error(given: Any) -> PythonError:
    given = given if isinstance(given, dict) else {}
    types = given.get("types")
    error: PythonError = {
        "type": str(given.get("type", "")),
        "types": list(map(str, types[:_TYPES])) if isinstance(types, list) else [],
        "message": str(given.get("message", "")),
        "traceback": str(given.get("traceback", "")),
    }
    seconds = given.get("retryAfterSeconds")
    if isinstance(seconds, int) and seconds >= 0:
        error["retryAfterSeconds"] = min(int(seconds), _LONGEST_RETRY_SECONDS)
    if given.get("final") is True:
        error["final"] = True
    return error
