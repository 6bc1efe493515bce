"""Running the steps of the drivers: each with a time limit, its output passed on, its duration printed."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class StepFailed(Exception):
    """A command did not do what it was for; the message is for the person at the terminal."""


def say(message: str = "") -> None:
    """Print progress on stderr; stdout is for what was asked for."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    started = time.monotonic()
    say(f"==> {name}")
    yield
    elapsed = time.monotonic() - started
    if elapsed >= 2:
        say(f"    {name}: {elapsed:.0f} s")


def run(command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> None:
    """Run a command; what it prints goes to stderr.

    Raises:
        StepFailed: it is not installed, took longer than `timeout` seconds, or failed.
    """
    _run(command, timeout=timeout, env=env, stdout=sys.stderr.fileno())


def read(command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed on stdout.

    Raises:
        StepFailed: as of `run`.
    """
    return _run(command, timeout=timeout, env=env, stdout=subprocess.PIPE)


def succeeds(command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None = None) -> bool:
    """Say whether a command exits with 0 in time; its output is dropped."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        return done.returncode == 0
    return False


def _run(command: Sequence[str | Path], *, timeout: float, env: Mapping[str, str] | None, stdout: int) -> str:
    words = [str(word) for word in command]
    shown = " ".join(words)
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise StepFailed(f"{words[0]} is not installed: cannot run {shown}") from error
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"took longer than {timeout:.0f} s: {shown}") from error
    if done.returncode != 0:
        raise StepFailed(f"exit code {done.returncode}: {shown}")
    return done.stdout or ""
