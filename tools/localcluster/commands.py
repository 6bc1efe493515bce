"""Running other programs: always with a timeout, and a failure always shows what the program said.

A hanging command in a script costs more than a failing one, so there is no way to run one without a limit.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from localcluster.errors import LocalClusterError


def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> str:
    """Run a command and return what it printed on stdout.

    Args:
        command: program and arguments.
        timeout: seconds after which it is killed.
        cwd: where to run it.
        env: variables added to this process's own.
        stdin: text given to it; nothing otherwise.
        check: whether a non-zero exit is an error.
        pass_fds: open files that it inherits.

    Raises:
        LocalClusterError: not found, timed out, or failed (with the end of its output).
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            pass_fds=pass_fds,
        )
    except FileNotFoundError as error:
        raise LocalClusterError(f"{words[0]} is not installed: cannot run {' '.join(words)}") from error
    except subprocess.TimeoutExpired as error:
        raise LocalClusterError(f"took longer than {timeout:g} s: {' '.join(words)}") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise LocalClusterError(f"exit code {done.returncode} from: {' '.join(words)}\n{said}")
    return done.stdout


def say(message: str) -> None:
    """Tell the person at the terminal; stdout stays free for values that other programs read."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Hold a file lock, so that of several processes one does the work and the others find it done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another process: {waiting_for}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
