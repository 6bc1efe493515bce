"""A fork server: a small single-threaded process whose only work is to fork a supervisor for each attempt.

Requests come on a SEQPACKET socket, nine bytes each: an operation and the attempt's token. `FORK` carries three
descriptors (control socket, stdout, stderr); the new supervisor reads everything else from its control socket, so
nothing here depends on the attempt. `BURY` kills a supervisor and everything below it, and is answered when nothing of
it is left. `REAP` collects zombies. The first answer is `READY`, after the preloaded modules were imported.

Being a subreaper, a zygote inherits the tree of a supervisor that was killed: its children that are not supervisors are
such orphans, and are killed. When its socket ends, the runner is gone: the supervisors see the same on theirs; what has
not ended after a moment is killed, and the zygote exits.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import time

from taskmaster_worker.runner import descendants, kernel, supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

CONTROL = 3
FORK, BURY, REAP, READY = b"F", b"B", b"R", b"Y"
REQUEST = struct.Struct("!cQ")
_PARTING_SECONDS = 3.0
_BURY_SECONDS = 10.0


class Zygote:
    """The supervisors of this fork server, by token and by process id."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: dict[int, int] = {}
        self._known = {*descendants.children(os.getpid())}  # what preloaded modules have started is not ours to kill

    def serve(self) -> None:
        """Answer requests until the runner's end closes."""
        try:
            self._control.send(REQUEST.pack(READY, 0))
            while self._answer():
                pass
        except (BrokenPipeError, ConnectionResetError):
            log("info", "the runner has gone")
        self._part()

    def _answer(self) -> bool:
        data, received, _, _ = socket.recv_fds(self._control, REQUEST.size, 3)
        if not data:
            return False
        for descriptor in received:
            os.set_inheritable(descriptor, False)  # recv_fds ignores its flags, MSG_CMSG_CLOEXEC included
        operation, token = REQUEST.unpack(data)
        self._reap()
        if operation == FORK:
            self._fork(token, received)
        elif operation == BURY:
            self._bury(token)
            self._control.send(REQUEST.pack(BURY, token))
        return True

    def _fork(self, token: int, received: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # a limit of the container
            log("error", "no process for the supervisor", error=str(error))
            supervisor.tell_exhausted(socket.socket(fileno=received.pop(0)), str(error.strerror))
            pid = -1
        if pid == 0:
            self._control.close()
            _supervise(received)
        for descriptor in received:
            os.close(descriptor)
        if pid > 0:
            self._pids[token] = pid
            self._known.add(pid)

    def _bury(self, token: int) -> None:
        pid = self._pids.pop(token, 0)
        if pid in self._known:  # not reaped yet, so the id is still the supervisor's
            descendants.send(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._known.discard(pid)
        self._kill_all_but(self._known, seconds=_BURY_SECONDS)

    def _part(self) -> None:
        until = time.monotonic() + _PARTING_SECONDS
        while self._reap() and time.monotonic() < until:
            time.sleep(0.005)
        self._kill_all_but((), seconds=_BURY_SECONDS)

    def _kill_all_but(self, known: Container[int], *, seconds: float) -> None:
        until = time.monotonic() + seconds
        while descendants.kill_all(known):
            self._reap()
            if time.monotonic() > until:
                log("error", "processes could not be killed")
                return
            time.sleep(0.001)

    def _reap(self) -> bool:
        ended, more = descendants.reap()
        if ended:
            gone = {pid for pid, _ in ended}
            self._known -= gone
            self._pids = {token: pid for token, pid in self._pids.items() if pid not in gone}
        return more


def _supervise(received: list[int]) -> None:
    code = 1
    try:
        control, stdout, stderr = received
        supervisor.supervise(socket.socket(fileno=control), stdout, stderr)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # the runner did not wait for the report
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def preload(modules: list[str]) -> None:
    """Import modules that callables will need; one that fails is left to the attempts that name it."""
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            log(
                "error",
                "preload failed: its tasks will try again",
                module=module,
                error=f"{type(error).__name__}: {error}",
            )
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        log("warning", "a preloaded module has started threads: they do not exist in the tasks")


def log(level: str, message: str, **fields: object) -> None:
    """Write one JSON line to standard error."""
    line = json.dumps({"time": kernel.timestamp(), "level": level, "message": message, **fields})
    os.write(2, line.encode() + b"\n")


def main() -> None:
    """Run as a fork server. Arguments: the runner's process id, soft limit of open files, modules to preload."""
    runner, open_files, *modules = sys.argv[1:]
    kernel.die_with_parent(signal.SIGKILL, parent=int(runner))  # importing, it would not see its socket's end
    kernel.become_subreaper()
    kernel.limit_open_files(int(open_files))
    preload(modules)
    kernel.die_with_parent(0, parent=int(runner))
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    sys.argv[1:] = []
    gc.collect()
    gc.disable()
    gc.freeze()
    Zygote(socket.socket(fileno=CONTROL)).serve()
