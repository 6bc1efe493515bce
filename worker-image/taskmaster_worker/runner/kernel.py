"""The few Linux calls that Python has no function for, and the time as we write it."""

from __future__ import annotations

import ctypes
import os
import resource
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OPEN_FILES = 65536
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Make orphans below this process its children; not inherited by forks."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int, *, parent: int) -> None:
    """Get a signal when the parent dies (0: no more); not inherited by forks. Exits if `parent` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if signal_number and os.getppid() != parent:
        os._exit(1)


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may be; return the limit it had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES) if hard >= 0 else _OPEN_FILES), hard))
    return soft


def limit_open_files(limit: int) -> None:
    """Lower the limit of open files; it can be raised again."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def timestamp() -> str:
    """Return the wall-clock time in RFC 3339, UTC, with six fraction digits."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds // 1000:06d}Z"
