"""The task's own process, from the supervisor's fork to the user's program or callable.

It leads a session of its own, so that `kill 0` in user code reaches only what belongs to the task; it dies with its
supervisor; standard input is the zygote's /dev/null. Signals were blocked across the fork, so a stop that arrives
meanwhile is not lost.

Before it ends it may write one `Outcome` to a pipe. The pipe is closed by `exec`. Nobody reads it before the task has
ended, so an outcome has to fit into it (64 KiB): a result has at most 32 KiB, an error at most 6 KiB characters of at
most 6 bytes.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from taskmaster_worker.runner import command, kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from taskmaster_worker.runner.spec import Outcome, Spec

_PYTHON_LEAVES_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)


def run_task(spec: Spec, *, supervisor: int, stdout: int, stderr: int, outcome: int) -> NoReturn:
    """Become the task; called in a fresh fork of the supervisor, whose own code must never go on in this process."""
    try:
        _detach(supervisor, stdout, stderr)
        if "python" in spec["run"]:
            from taskmaster_worker.runner import callable_task

            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            callable_task.run(spec["run"]["python"], outcome=outcome, python_path=spec["env"].get("PYTHONPATH", ""))
        _execute(spec, outcome)
    except BaseException as error:
        write_outcome(outcome, {"startError": f"task cannot be started: {type(error).__name__}: {error}"})
    finally:
        os._exit(command.NOT_USABLE)


def _detach(supervisor: int, stdout: int, stderr: int) -> None:
    kernel.die_with_parent(signal.SIGKILL, parent=supervisor)
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _execute(spec: Spec, outcome: int) -> NoReturn:
    try:
        argv, field = command.arguments(spec["run"], spec["directory"])
        path = command.find_program(argv[0] if argv else "", field)
        for number in _PYTHON_LEAVES_IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        command.execute(path, argv, field)
    except command.StartError as error:
        write_outcome(outcome, {"startError": str(error)})
        os._exit(error.exit_code)


def write_outcome(descriptor: int, outcome: Outcome) -> None:
    """Write the outcome; a supervisor that is gone does not matter any more."""
    try:
        os.write(descriptor, json.dumps(outcome, ensure_ascii=False).encode("utf-8", "replace"))
    except OSError as error:
        print(f"taskmaster: the outcome was not written: {error}", file=sys.stderr)
