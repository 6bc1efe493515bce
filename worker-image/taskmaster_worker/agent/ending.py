"""How an attempt ended: from the runner's exit frame, and what the agent did to it, to an outcome with a reason.

Pure. The first rule that matches decides:

| what happened                                  | outcome     | reason         |
|------------------------------------------------|-------------|----------------|
| the agent stopped it before it ended by itself | as intended | as intended    |
| no process could be made for it                | Released    | Interrupted    |
| its supervisor died                            | WorkerLost  | WorkerLost     |
| killed for using more memory than allowed      | Failed      | OutOfMemory    |
| its process could not be started               | Failed      | StartFailed    |
| an exception left the callable                 | Failed      | Error          |
| killed by a signal                             | Failed      | Signal         |
| exit code other than 0                         | Failed      | ExitCode       |
| its result was refused                         | Failed      | ResultRejected |
| none of these                                  | Succeeded   | Completed      |

What a stop intends stands in `stops`: Cancelled, Suspended, Interrupted, or Failed with TimedOut or Stalled. It decides
even if the process then ends with exit code 0 and a result: only the agent knows whether it was asked to stop, and the
process cannot say whether it had finished. What an exit frame does not say, because there is none, is said by `unseen`.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Final

from taskmaster.api.patches import LOG_TAIL_BYTES, MESSAGE_CHARACTERS, Ended
from taskmaster.api.times import from_wire
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd, Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent.stops import Stop
from taskmaster_worker.runner.messages import Exit, PythonError
from taskmaster_worker.runner.result import ResultError, checked

SUPERVISOR_DIED: Final = "its supervisor process died"
RUNNER_DIED: Final = "the runner container died"
NO_PROCESS: Final = "the worker had no process left for it"

NO_PROCESS_SECONDS: Final = 5.0
"""How long an attempt for which there was no process waits for the next one."""


def natural(exit_frame: Exit) -> Ended:
    """Say how an attempt ended as far as the runner can tell.

    Raises:
        KeyError, TypeError, ValueError: the frame is not whole: a bug of the runner.
    """
    started, ended = from_wire(exit_frame["startTime"]), from_wire(exit_frame["endTime"])
    tail = clean(exit_frame["tail"]).encode()[-LOG_TAIL_BYTES:].decode("utf-8", "ignore")
    code, number = exit_frame["exitCode"], exit_frame["signal"]
    end, message = _end(exit_frame)
    result = None
    if end.outcome is Outcome.SUCCEEDED and "result" in exit_frame:
        try:
            result = checked(exit_frame["result"])
        except ResultError as error:
            end, message = AttemptEnd(Outcome.FAILED, EndReason.RESULT_REJECTED), str(error)
    return Ended(
        outcome=end.outcome,
        reason=end.reason,
        message=clean(message)[:MESSAGE_CHARACTERS],
        ended=ended,
        started=None if "startError" in exit_frame or "exhausted" in exit_frame else started,
        exit_code=code,
        signal=number or None,
        error_types=end.error_types,
        retry_after=end.retry_after,
        final=end.final,
        log_tail=tail,
        result=result,
    )


def judge(ended: Ended, stop: Stop | None, *, sent: Instant) -> Ended:
    """Say how an attempt ended that may have been stopped; `sent` is on the clock that says when it ended.

    A stop that was sent when the attempt had already ended by itself did not decide anything.
    """
    if stop is None or ended.ended < sent:
        return ended
    return replace(
        ended,
        outcome=stop.outcome,
        reason=stop.reason,
        message=stop.message,
        error_types=(),
        http_status=None,
        retry_after=None,
        final=False,
        result=None,
    )


def unseen(
    stop: Stop, *, started: Instant | None, now: Instant, final: bool = False, runner_died: bool = False
) -> Ended:
    """Say how an attempt ended of which there is no exit frame: it never began, or its runner is gone."""
    message = clean(stop.message)[:MESSAGE_CHARACTERS]
    return Ended(stop.outcome, stop.reason, message, ended=now, started=started, final=final, runner_died=runner_died)


def clean(text: str) -> str:
    """Return the text without halves of surrogate pairs, which no JSON for the API server can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _end(exit_frame: Exit) -> tuple[AttemptEnd, str]:
    if exit_frame.get("exhausted"):
        return AttemptEnd(Outcome.RELEASED, EndReason.INTERRUPTED, retry_after=NO_PROCESS_SECONDS), NO_PROCESS
    if exit_frame.get("supervisorLost"):
        return AttemptEnd(Outcome.WORKER_LOST, EndReason.WORKER_LOST), SUPERVISOR_DIED
    if (used := exit_frame.get("outOfMemory")) is not None:
        return _failed(EndReason.OUT_OF_MEMORY), f"used {used / 2**20:.0f} MiB: more than resources.memoryMiB allows"
    if start_error := exit_frame.get("startError"):
        return _failed(EndReason.START_FAILED), start_error
    if error := exit_frame.get("error"):
        return _raised(error), f"{error['type']}: {error['message']}".removesuffix(": ")
    if number := exit_frame["signal"]:
        return _failed(EndReason.SIGNAL), _killed_by(number)
    if code := exit_frame["exitCode"]:
        return _failed(EndReason.EXIT_CODE), f"exit code {code}"
    if refused := exit_frame.get("resultError"):
        return _failed(EndReason.RESULT_REJECTED), refused
    return AttemptEnd(Outcome.SUCCEEDED, EndReason.COMPLETED), ""


def _failed(reason: EndReason) -> AttemptEnd:
    return AttemptEnd(Outcome.FAILED, reason)


def _raised(error: PythonError) -> AttemptEnd:
    seconds = error.get("retryAfterSeconds")
    return AttemptEnd(
        Outcome.FAILED,
        EndReason.ERROR,
        error_types=tuple(error["types"]),
        retry_after=None if seconds is None else float(seconds),
        final=error.get("final", False),
    )


def _killed_by(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "signal"
    if number == signal.SIGKILL:
        return f"killed by {name} (9), not by Taskmaster: often the kernel's answer to a container out of memory"
    return f"killed by {name} ({number})"
