"""Finding and starting the program of `run.command` and `run.script`.

A program that cannot be started is the user's mistake, so it gets the exit code that a shell would give (127 not found,
126 found but not usable) and one sentence that names the field to look at.
"""

from __future__ import annotations

import errno
import os
import signal
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from taskmaster_worker.runner.messages import Run

NOT_FOUND = 127
NOT_USABLE = 126
_TO_DEFAULT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)


class StartError(Exception):
    """The task cannot be started: the exit code that says so, and why."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Exhausted(Exception):
    """No process can be made now: a limit of the container, not the task's doing."""


def enter_directory(path: str) -> None:
    """Change to the task's working directory; an empty path stays where the image's WORKDIR put us.

    Raises:
        StartError: there is no such directory, or it may not be entered.
    """
    if not path:
        return
    try:
        os.chdir(path)
    except FileNotFoundError:
        raise StartError(NOT_USABLE, f"working directory does not exist: {path}: check spec.workingDir") from None
    except (OSError, ValueError) as error:
        raise StartError(NOT_USABLE, f"working directory cannot be used: {path}: {_reason(error)}") from None


def set_environment(variables: dict[str, str]) -> None:
    """Add variables to this process's environment.

    Raises:
        StartError: a name or value that no environment can hold.
    """
    for name, value in variables.items():
        try:
            os.environ[name] = value
        except (OSError, ValueError) as error:
            raise StartError(NOT_USABLE, f"environment variable {name!r} cannot be set: {_reason(error)}") from None


def arguments(run: Run, directory: str) -> tuple[list[str], str]:
    """Return the argument vector of a command or script, and the field that its first word comes from.

    A script is written to a file and handed to its interpreter by path, so it needs neither a `#!` line nor a file
    system that allows execution.
    """
    if "script" not in run:
        return run.get("command", []), "run.command[0]"
    path = os.path.join(directory, "script")
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(run["script"]["source"])
    except (OSError, ValueError) as error:
        raise StartError(NOT_USABLE, f"script cannot be written: {_reason(error)}") from None
    return [*run["script"]["interpreter"].split(), path], "run.script.interpreter"


def find_program(name: str, field: str) -> str:
    """Return the path of a program, looked up in the PATH of this process unless it has a slash.

    Raises:
        StartError: not found, a directory, or not executable.
    """
    if not name:
        raise StartError(NOT_FOUND, f"command is empty: check {field}")
    places = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    blocked = ""
    for place in places:
        path = os.path.join(place, name)
        try:
            usable = stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            blocked = blocked or f"{path}: {_reason(error)}"
            continue
        if usable:
            return path
        blocked = blocked or f"{path}: {'is a directory' if os.path.isdir(path) else 'permission denied'}"
    if blocked:
        raise StartError(NOT_USABLE, f"command is not executable: {blocked}: check {field} and the worker image")
    raise StartError(NOT_FOUND, f"command not found: {name}: check {field} and the worker image")


def spawn(run: Run, *, directory: str, stdout: int, stderr: int) -> int:
    """Start the program in a session of its own and return its process id.

    By `posix_spawn`, which borrows this process's memory until the `exec` instead of copying it: that is a quarter of
    the cost of an attempt. Its price is that no parent-death signal can be set on the way (see the package's essay for
    what ends an orphan instead). Signals are blocked until the program has its own handling, so a stop is not lost.

    Raises:
        StartError: the program was not found, or the kernel refused it.
        OSError: EAGAIN or ENOMEM, a limit of the container.
    """
    argv, field = arguments(run, directory)
    path = find_program(argv[0] if argv else "", field)
    try:
        return os.posix_spawn(
            path,
            argv,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1), (os.POSIX_SPAWN_DUP2, stderr, 2)],
            setsid=True,
            setsigmask=(),
            setsigdef=_TO_DEFAULT,
        )
    except OSError as error:
        match error.errno:
            case errno.EAGAIN | errno.ENOMEM:
                raise
            case errno.ENOENT:
                raise StartError(
                    NOT_FOUND, f"command not found: the interpreter that {path} names is missing"
                ) from None
            case errno.ENOEXEC:
                message = f"command is not executable: {path} is neither a program for this machine nor has a #! line"
                raise StartError(NOT_USABLE, message) from None
            case errno.E2BIG:
                message = (
                    f"command cannot be started: {path}: arguments and environment too long (131071 bytes for one)"
                )
                raise StartError(NOT_USABLE, message) from None
        raise StartError(NOT_USABLE, f"command cannot be started: {path}: {_reason(error)}: check {field}") from None
    except ValueError as error:
        raise StartError(NOT_USABLE, f"command cannot be started: {path}: {error}: check {field}") from None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
