"""`run.python` inside the task's process: load, call, say what became of it.

An exception that leaves the callable is the attempt's error and exit code 1, with the traceback on standard error as
Python itself would print it; `SystemExit` keeps its own code. The traceback starts at the user's code: our frames and
those of the import system are cut off.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import sys
import threading
import traceback

from taskmaster_worker.runner import result, task
from taskmaster_worker.sdk import calling, loading
from taskmaster_worker.sdk.errors import Fail, RetryAfter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

    from taskmaster_worker.runner.messages import PythonCall, PythonError
    from taskmaster_worker.runner.spec import Outcome

MESSAGE_CHARACTERS = 2048
TRACEBACK_CHARACTERS = 4096
TYPES = 32
NAME_CHARACTERS = 256
TYPES_CHARACTERS = 4096
_OURS = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, "<frozen importlib", importlib.__file__)


def run(call: PythonCall, *, outcome: int, python_path: str) -> NoReturn:
    """Load the callable, call it, write the outcome, and end the process."""
    gc.enable()
    sys.stdout, sys.stderr = _stream(1), _stream(2)  # anew: the zygote's own were opened on something else
    sys.argv = [call["callable"]]
    sys.path[:0] = [place for place in python_path.split(os.pathsep) if place and place not in sys.path]
    exit_code, report = _call(call)
    if report:
        task.write_outcome(outcome, report)
    _finish(exit_code)


def _stream(descriptor: int) -> io.TextIOWrapper:
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _call(call: PythonCall) -> tuple[int, Outcome]:
    reference = call["callable"]
    try:
        value = calling.call(loading.load(reference), call.get("args") or {}, reference=reference)
    except SystemExit as leaving:
        return _exit_code(leaving), {}
    except BaseException as error:
        lines = "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__)))
        print(lines, end="", file=sys.stderr)
        return 1, {"error": _report(error, lines)}
    if value is None:
        return 0, {}
    try:
        return 0, {"result": result.checked(value)}
    except result.ResultError as refused:
        return 0, {"resultError": f"return value of {reference}: {refused}"}


def _report(error: BaseException, lines: str) -> PythonError:
    report: PythonError = {
        "type": type(error).__name__,
        "types": _types(type(error)),
        "message": _message(error)[:MESSAGE_CHARACTERS],
        "traceback": lines[-TRACEBACK_CHARACTERS:],
    }
    if isinstance(error, RetryAfter):
        report["retryAfterSeconds"] = error.seconds
    if isinstance(error, Fail):
        report["final"] = True
    return report


def _types(error: type[BaseException]) -> list[str]:
    names: list[str] = []
    room = TYPES_CHARACTERS
    for base in error.__mro__:
        if base not in (object, BaseException):
            whole = base.__qualname__ if base.__module__ == "builtins" else f"{base.__module__}.{base.__qualname__}"
            for name in (base.__name__, whole):
                room -= len(name)
                if name not in names and len(names) < TYPES and room >= 0:
                    names.append(name[:NAME_CHARACTERS])
    return names


def _exit_code(leaving: SystemExit) -> int:
    match leaving.code:
        case None:
            return 0
        case int(code):
            return code & 0xFF
        case text:
            print(text, file=sys.stderr)
            return 1


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<no message: its __str__ raised {type(broken).__name__}>"


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _finish(exit_code: int) -> NoReturn:
    """End as an interpreter would, without tearing down the zygote's modules: threads, exit handlers, buffers."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                exit_code = exit_code or 120  # Python's own code for this
        os._exit(exit_code)
