"""Child processes that cannot outlive this one.

Each child asks the kernel (prctl PR_SET_PDEATHSIG) to be killed when its parent ends, so that not even `kill -9` of a
test run leaves an API server behind. The kernel takes "parent" to be the *thread* that made the child; all children
are therefore made by one thread that lives as long as the process, and callers may use any thread or event loop.

Each child has a session of its own: Ctrl-C at a terminal reaches the parent only, which then stops its children in
the right order.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localcluster.errors import LocalClusterError

# The parent may have been killed before the child could ask to follow it.
ORPHAN_CHECK = '[ "$PPID" = "$0" ] || exit 1; exec "$@"'
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class Child:
    """One running program with a log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._process = _spawner.submit(_spawn, list(command), log, env).result()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def stop(self, *, grace: float = 10.0) -> None:
        """Ask the program to end, and kill it after `grace` seconds. Stopping it twice does nothing."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the program at once."""
        self._process.kill()
        self._process.wait()

    def expect_running(self) -> None:
        """Raise an error with the end of the log if the program has ended by itself."""
        if not self.running:
            raise LocalClusterError(f"{self.name} ended with {self._process.returncode}:\n{tail(self.log)}")


def tail(log: Path, *, limit: int = 3000) -> str:
    """Return the end of a log file."""
    try:
        return log.read_bytes()[-limit:].decode(errors="replace")
    except FileNotFoundError:
        return ""


def _spawn(command: list[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", ORPHAN_CHECK, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
