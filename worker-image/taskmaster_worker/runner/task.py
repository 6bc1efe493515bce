"""The process of a Python task, from the supervisor's fork to the user's callable.

It leads a session of its own, so that `kill 0` in user code reaches only what belongs to the task; it dies with its
supervisor; standard input is the zygote's /dev/null. Signals were blocked across the fork, so a stop that arrives
meanwhile is not lost.

What became of the callable is written to a pipe as one `Outcome`. Nobody reads it before the task has ended, so an
outcome has to fit into it (64 KiB): a result has at most 32 KiB, an error at most 6 KiB characters of at most 6 bytes
and 4 KiB characters of type names of at most 4.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from taskmaster_worker.runner import command, kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from taskmaster_worker.runner.spec import Outcome, Spec


def fork(spec: Spec, leave: Callable[[], None], *, stdout: int, stderr: int) -> tuple[int, int]:
    """Fork the process of a callable; return its process id and the end of the pipe where its outcome will be.

    `leave` is called in the new process.

    Raises:
        OSError: the kernel refused.
    """
    supervisor = os.getpid()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        _run_callable(spec, leave, supervisor=supervisor, stdout=stdout, stderr=stderr, outcome=writer)
    os.close(writer)
    os.set_blocking(reader, False)
    return pid, reader


def _run_callable(
    spec: Spec, leave: Callable[[], None], *, supervisor: int, stdout: int, stderr: int, outcome: int
) -> NoReturn:
    """Become the task: the supervisor's own code must never go on in this process."""
    try:
        leave()
        _detach(supervisor, stdout, stderr)
        from taskmaster_worker.runner import callable_task  # loaded in the python zygote only

        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        callable_task.run(spec["run"]["python"], outcome=outcome, python_path=spec["env"].get("PYTHONPATH", ""))
    except BaseException as error:
        write_outcome(outcome, {"startError": f"task cannot be started: {type(error).__name__}: {error}"})
    finally:
        os._exit(command.NOT_USABLE)


def _detach(supervisor: int, stdout: int, stderr: int) -> None:
    kernel.die_with_parent(signal.SIGKILL, parent=supervisor)
    os.setsid()
    for descriptor, place in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def write_outcome(descriptor: int, outcome: Outcome) -> None:
    """Write the outcome; a supervisor that is gone does not matter any more."""
    try:
        os.write(descriptor, json.dumps(outcome, ensure_ascii=False).encode("utf-8", "replace"))
    except OSError as error:
        print(f"taskmaster: the outcome was not written: {error}", file=sys.stderr)
