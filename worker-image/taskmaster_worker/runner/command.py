"""Finding and starting the program of `run.command` and `run.script`.

A program that cannot be started is the user's mistake, so it gets the exit code that a shell would give (127 not found,
126 found but not usable) and one sentence that names the field to look at.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from taskmaster_worker.runner.messages import Run

NOT_FOUND = 127
NOT_USABLE = 126


class StartError(Exception):
    """The task cannot be started: the exit code that says so, and why."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
        raise StartError(NOT_USABLE, f"working directory does not exist: {path}: check run.workingDir") from None
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
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(run["script"]["source"])
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
        if not os.path.exists(path):
            continue
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        blocked = blocked or f"{path}: {'is a directory' if os.path.isdir(path) else 'permission denied'}"
    if blocked:
        raise StartError(NOT_USABLE, f"command is not executable: {blocked}: check {field} and the worker image")
    raise StartError(NOT_FOUND, f"command not found: {name}: check {field} and the worker image")


def execute(path: str, argv: list[str], field: str) -> NoReturn:
    """Become the program.

    Raises:
        StartError: the kernel refused it.
    """
    try:
        os.execv(path, argv)
    except OSError as error:
        match error.errno:
            case errno.ENOENT:
                raise StartError(
                    NOT_FOUND, f"command not found: the interpreter that {path} names is missing"
                ) from None
            case errno.ENOEXEC:
                message = f"command is not executable: {path} is neither a program for this machine nor has a #! line"
                raise StartError(NOT_USABLE, message) from None
            case errno.E2BIG:
                message = (
                    f"command cannot be started: {path}: arguments and environment are too long (131071 bytes for one)"
                )
                raise StartError(NOT_USABLE, message) from None
        raise StartError(NOT_USABLE, f"command cannot be started: {path}: {_reason(error)}: check {field}") from None
    except ValueError as error:
        raise StartError(NOT_USABLE, f"command cannot be started: {path}: {error}: check {field}") from None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
