"""How an attempt ended: from the runner's exit frame, and what the agent did to it, to an outcome with a reason.

Pure. The first rule that matches decides:

| what happened                                  | outcome     | reason                  |
|------------------------------------------------|-------------|-------------------------|
| the agent stopped it before it ended by itself | as intended | TimedOut or Interrupted |
| its supervisor died                            | WorkerLost  | WorkerLost              |
| its process could not be started               | Failed      | StartFailed             |
| an exception left the callable                 | Failed      | Error                   |
| killed by a signal                             | Failed      | Signal                  |
| exit code other than 0                         | Failed      | ExitCode                |
| its result was refused                         | Failed      | ResultRejected          |
| none of these                                  | Succeeded   | Completed               |
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from taskmaster.api.patches import LOG_TAIL_BYTES, Ended
from taskmaster.api.times import from_wire
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.runner.messages import Exit
from taskmaster_worker.runner.result import ResultError, checked

MESSAGE_CHARACTERS = 1_024

SUPERVISOR_DIED = "its supervisor process died"
RUNNER_DIED = "the runner container died"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the agent stops an attempt. `sent` is wall-clock time on the clock that the runner also reads."""

    outcome: Outcome
    reason: EndReason
    message: str
    sent: Instant


def judge(exit_frame: Exit, stop: Stop | None) -> Ended:
    """Say how an attempt ended.

    A stop that was sent when the process had already ended by itself did not decide anything.

    Raises:
        KeyError, TypeError, ValueError: the frame is not whole: a bug of the runner.
    """
    started, ended = from_wire(exit_frame["startTime"]), from_wire(exit_frame["endTime"])
    tail = clean(exit_frame["tail"]).encode()[-LOG_TAIL_BYTES:].decode("utf-8", "ignore")
    code = exit_frame["exitCode"]
    result = None
    if stop is not None and ended >= stop.sent:
        outcome, reason, message = stop.outcome, stop.reason, stop.message
    else:
        outcome, reason, message = _natural(exit_frame)
        if outcome is Outcome.SUCCEEDED and "result" in exit_frame:
            try:
                result = checked(exit_frame["result"])
            except ResultError as error:
                outcome, reason, message = Outcome.FAILED, EndReason.RESULT_REJECTED, str(error)
    return Ended(
        outcome=outcome,
        reason=reason,
        message=clean(message)[:MESSAGE_CHARACTERS],
        ended=ended,
        started=None if "startError" in exit_frame else started,
        exit_code=code,
        log_tail=tail,
        result=result,
    )


def unseen(outcome: Outcome, reason: EndReason, message: str, *, started: Instant | None, now: Instant) -> Ended:
    """Say how an attempt ended of which there is no exit frame: it never began, or its runner is gone."""
    return Ended(outcome, reason, clean(message)[:MESSAGE_CHARACTERS], ended=now, started=started)


def clean(text: str) -> str:
    """Return the text without halves of surrogate pairs, which no JSON for the API server can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _natural(exit_frame: Exit) -> tuple[Outcome, EndReason, str]:
    if exit_frame.get("supervisorLost"):
        return Outcome.WORKER_LOST, EndReason.WORKER_LOST, SUPERVISOR_DIED
    if start_error := exit_frame.get("startError"):
        return Outcome.FAILED, EndReason.START_FAILED, start_error
    if error := exit_frame.get("error"):
        return Outcome.FAILED, EndReason.ERROR, f"{error['type']}: {error['message']}".removesuffix(": ")
    if number := exit_frame["signal"]:
        return Outcome.FAILED, EndReason.SIGNAL, _killed_by(number)
    if code := exit_frame["exitCode"]:
        return Outcome.FAILED, EndReason.EXIT_CODE, f"exit code {code}"
    if refused := exit_frame.get("resultError"):
        return Outcome.FAILED, EndReason.RESULT_REJECTED, refused
    return Outcome.SUCCEEDED, EndReason.COMPLETED, ""


def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "signal"
    if number == signal.SIGKILL:
        return f"killed by {name} (9), not by Taskmaster: often the kernel's answer to a container out of memory"
    return f"killed by {name} ({number})"
