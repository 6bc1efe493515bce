"""One process per attempt: starts the task, passes on stop orders, and does not end before everything below it has.

A fork of a zygote; single-threaded. It waits for two things only: its control socket and SIGCHLD. `waitpid` answering
"no child" is the end of the attempt (see `descendants`), so a task that double-forks, calls `setsid`, ignores SIGTERM
or closes its output is no special case.

How the tree ends: by itself; or by a stop order, SIGTERM to all and SIGKILL to what is left after the grace; or, when
the task's main process has ended without a stop, SIGTERM to the processes it left behind and SIGKILL
`ORPHAN_GRACE_SECONDS` later; or at once when the control socket ends, which says that the agent or the runner is gone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

from taskmaster_worker.runner import command, descendants, frames, kernel, result, task

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from taskmaster_worker.runner.spec import Outcome, Report, Spec

ORPHAN_GRACE_SECONDS = 0.1
_KILL_REPEAT_SECONDS = 0.005
_OUTCOME_BYTES = 64 * 1024


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
        report = _attempt(spec, Tree(control, decoder, orders), stdout, stderr)
    finally:
        _remove(spec["directory"])
    control.sendall(frames.encode(report))


def _attempt(spec: Spec, tree: Tree, stdout: int, stderr: int) -> Report:
    start_time = kernel.timestamp()
    try:
        result_file = os.path.join(spec["directory"], "result")
        command.set_environment({**spec["env"], "TASK_RESULT_FILE": result_file})
        command.enter_directory(spec["workingDir"])
        os.mkdir(spec["directory"], 0o700)
    except command.StartError as error:
        return _failed_start(error.exit_code, str(error), start_time)
    except OSError as error:
        return _failed_start(command.NOT_USABLE, f"no directory for $TASK_RESULT_FILE: {error.strerror}", start_time)
    reader = -1
    try:
        if "python" in spec["run"]:
            main, reader = tree.fork(spec, stdout=stdout, stderr=stderr)
        else:
            main = command.spawn(spec["run"], directory=spec["directory"], stdout=stdout, stderr=stderr)
    except command.StartError as error:
        return _failed_start(error.exit_code, str(error), start_time)
    os.close(stdout)
    os.close(stderr)
    tree.control.sendall(frames.encode({"started": start_time}))
    status, end_time = tree.wait(main)
    exit_code = os.waitstatus_to_exitcode(status)
    report: Report = {
        "exitCode": exit_code if exit_code >= 0 else None,
        "signal": -exit_code if exit_code < 0 else None,
        "startTime": start_time,
        "endTime": end_time,
    }
    _add_outcome(report, _read_outcome(reader) if reader >= 0 else {}, result_file)
    return report


class Tree:
    """Everything below the supervisor, and the orders about it."""

    def __init__(self, control: socket.socket, decoder: frames.Decoder, orders: list[dict[str, Any]]) -> None:
        self.control = control
        self._decoder = decoder
        self._orders = orders
        self._kill_time: float | None = None  # monotonic; SIGTERM was sent when it is set
        self._wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(control, select.POLLIN)

    def fork(self, spec: Spec, *, stdout: int, stderr: int) -> tuple[int, int]:
        """Fork a Python task; return its process id and the end of the pipe where its outcome will be."""
        supervisor = os.getpid()
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            self.control.close()
            task.run_callable(spec, supervisor=supervisor, stdout=stdout, stderr=stderr, outcome=writer)
        os.close(writer)
        os.set_blocking(reader, False)
        return pid, reader

    def wait(self, main: int) -> tuple[int, str]:
        """Return the main process's wait status and its end time, once no process is left."""
        status, end_time = 0, ""
        while True:
            self._obey()
            ended, more = descendants.reap()
            for pid, pid_status in ended:
                if pid == main:
                    status, end_time = pid_status, kernel.timestamp()
            if not more:
                return status, end_time
            if end_time:
                self._stop_within(ORPHAN_GRACE_SECONDS, again=False)
            self._sleep()

    def _obey(self) -> None:
        for order in self._orders:
            self._stop_within(order["graceSeconds"], again=True)
        self._orders = []

    def _stop_within(self, seconds: float, *, again: bool) -> None:
        if self._kill_time is not None and not again:
            return
        kill_time = time.monotonic() + seconds
        self._kill_time = kill_time if self._kill_time is None else min(self._kill_time, kill_time)
        if seconds > 0:
            descendants.terminate_all()

    def _sleep(self) -> None:
        timeout = None
        if self._kill_time is not None:
            timeout = self._kill_time - time.monotonic()
            if timeout <= 0:
                descendants.kill_children()
                timeout = _KILL_REPEAT_SECONDS
        for descriptor, _ in self._poll.poll(None if timeout is None else timeout * 1000 + 1):
            if descriptor == self._wake:
                os.read(self._wake, 4096)
                continue
            data = self.control.recv(65536)
            if data:
                self._orders += self._decoder.feed(data)
            else:
                self._poll.unregister(self.control)
                self._orders.append({"graceSeconds": 0})


def _failed_start(exit_code: int, message: str, start_time: str) -> Report:
    return {
        "exitCode": exit_code,
        "signal": None,
        "startTime": start_time,
        "endTime": start_time,
        "startError": message,
    }


def _read_outcome(descriptor: int) -> Outcome:
    try:
        outcome = json.loads(os.read(descriptor, _OUTCOME_BYTES) or b"{}")
    except (BlockingIOError, ValueError):  # still open in a process outside the tree, or written over by user code
        return {}
    return outcome if isinstance(outcome, dict) else {}  # type: ignore[return-value]


def _add_outcome(report: Report, outcome: Outcome, result_file: str) -> None:
    if "startError" in outcome:
        report["startError"] = outcome["startError"]
    if "error" in outcome:
        report["error"] = outcome["error"]
    if "resultError" in outcome:
        report["resultError"] = outcome["resultError"]
        return
    try:
        value = result.checked(outcome["result"]) if "result" in outcome else result.read_file(result_file)
    except result.ResultError as error:
        report["resultError"] = str(error)
    else:
        if value is not None:
            report["result"] = value


def _remove(directory: str) -> None:
    try:
        for name in ("result", "script"):
            if os.path.lexists(path := os.path.join(directory, name)):
                os.unlink(path)
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        import shutil

        shutil.rmtree(directory, ignore_errors=True)
