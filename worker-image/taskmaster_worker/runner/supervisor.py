"""One process per attempt: starts the task, passes on stop orders, and does not end before everything below it has.

A fork of a zygote; single-threaded. `waitpid` answering "no child" is the end of the attempt (see `descendants`), so a
task that double-forks, calls `setsid`, ignores SIGTERM or closes its output is no special case.

How the tree ends: by itself; or by a stop order, SIGTERM to all and SIGKILL to what is left after the grace; or, when
the task's main process has ended without a stop, SIGTERM to the processes it left behind and SIGKILL
`tree.ORPHAN_GRACE_SECONDS` later; or by SIGKILL at once when it has more memory than it may, or when the control socket
ends, which says that the agent or the runner is gone.
"""

from __future__ import annotations

import contextlib
import os

from taskmaster_worker.runner import command, frames, kernel, task
from taskmaster_worker.runner.outcome import add_outcome, read_outcome
from taskmaster_worker.runner.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from taskmaster_worker.runner.spec import Report, Spec


def supervise(control: socket.socket, stdout: int, stderr: int) -> None:
    """Run one attempt from its spec to its report."""
    os.setsid()
    kernel.become_subreaper()
    decoder = frames.Decoder()
    orders: list[dict[str, Any]] = []
    while not orders:
        data = control.recv(65536)
        if not data:
            return
        orders = decoder.feed(data)
    spec: Spec = orders.pop(0)  # type: ignore[assignment]
    try:
        report = _attempt(spec, control, decoder, orders, stdout, stderr)
    except command.Exhausted as error:
        tell_exhausted(control, str(error))
    else:
        control.sendall(frames.encode(report))
    finally:
        _remove(spec["directory"])


def tell_exhausted(control: socket.socket, reason: str) -> None:
    """Tell the runner that no process can be made: a limit of the container, not the task's doing."""
    with contextlib.suppress(OSError):
        control.sendall(frames.encode({"exhausted": reason}))
    control.close()


def _attempt(
    spec: Spec,
    control: socket.socket,
    decoder: frames.Decoder,
    orders: list[dict[str, Any]],
    stdout: int,
    stderr: int,
) -> Report:
    start_time = kernel.timestamp()
    try:
        command.enter_directory(spec["workingDir"])
        os.mkdir(spec["directory"], 0o700)
        tree = Tree(spec, control, decoder, orders)
        command.set_environment({**spec["env"], **tree.context.variables})
    except command.StartError as error:
        return _failed_start(error.exit_code, str(error), start_time)
    except OSError as error:
        return _failed_start(command.NOT_USABLE, f"no directory for the task's files: {error.strerror}", start_time)
    reader = -1
    try:
        if "python" in spec["run"]:
            main, reader = task.fork(spec, tree.leave, stdout=stdout, stderr=stderr)
        else:
            main = command.spawn(spec["run"], directory=spec["directory"], stdout=stdout, stderr=stderr)
    except command.StartError as error:
        return _failed_start(error.exit_code, str(error), start_time)
    except OSError as error:
        raise command.Exhausted(error.strerror) from None
    os.close(stdout)
    os.close(stderr)
    tree.tell({"started": start_time})
    status, end_time = tree.wait(main)
    exit_code = os.waitstatus_to_exitcode(status)
    report: Report = {
        "exitCode": exit_code if exit_code >= 0 else None,
        "signal": -exit_code if exit_code < 0 else None,
        "startTime": start_time,
        "endTime": end_time,
    }
    if tree.out_of_memory:
        report["outOfMemory"] = tree.out_of_memory
    add_outcome(report, read_outcome(reader) if reader >= 0 else {}, tree.context.variables["TASK_RESULT_FILE"])
    return report


def _failed_start(exit_code: int, message: str, start_time: str) -> Report:
    return {
        "exitCode": exit_code,
        "signal": None,
        "startTime": start_time,
        "endTime": start_time,
        "startError": message,
    }


def _remove(directory: str) -> None:
    try:
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        import shutil

        shutil.rmtree(directory, ignore_errors=True)
