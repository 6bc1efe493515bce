"""From the runner's exit frame to an outcome."""

from typing import Any

import pytest
from tests.unit.agent_worker import EPOCH, exit_frame

from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent.ending import judge, natural
from taskmaster_worker.agent.stops import Stop

ERROR = {"type": "ValueError", "types": ["ValueError"], "message": "bad input", "traceback": "..."}
TIMED_OUT = Stop(Outcome.FAILED, EndReason.TIMED_OUT, "too long")


@pytest.mark.parametrize(
    ("frame", "outcome", "reason", "message"),
    [
        pytest.param({}, "Succeeded", "Completed", "", id="exit code 0"),
        pytest.param({"code": 3}, "Failed", "ExitCode", "exit code 3", id="exit code"),
        pytest.param(
            {"code": None, "signal": 9},
            "Failed",
            "Signal",
            "killed by SIGKILL (9), not by Taskmaster: often the kernel's answer to a container out of memory",
            id="SIGKILL",
        ),
        pytest.param({"code": None, "signal": 11}, "Failed", "Signal", "killed by SIGSEGV (11)", id="another signal"),
        pytest.param({"code": None, "signal": 45}, "Failed", "Signal", "killed by signal (45)", id="real-time signal"),
        pytest.param({"code": 1, "error": ERROR}, "Failed", "Error", "ValueError: bad input", id="exception"),
        pytest.param(
            {"code": 1, "error": {**ERROR, "message": ""}}, "Failed", "Error", "ValueError", id="silent exception"
        ),
        pytest.param(
            {"code": 127, "startError": "command not found: foo"},
            "Failed",
            "StartFailed",
            "command not found: foo",
            id="not started",
        ),
        pytest.param({"resultError": "too large"}, "Failed", "ResultRejected", "too large", id="result refused"),
        pytest.param(
            {"code": 2, "resultError": "too large"}, "Failed", "ExitCode", "exit code 2", id="failed before its result"
        ),
        pytest.param(
            {"code": None, "supervisorLost": True},
            "WorkerLost",
            "WorkerLost",
            "its supervisor process died",
            id="supervisor lost",
        ),
        pytest.param(
            {"code": None, "supervisorLost": True, "exhausted": True},
            "Released",
            "Interrupted",
            "the worker had no process left for it",
            id="no process left",
        ),
        pytest.param(
            {"code": None, "signal": 9, "outOfMemory": 70 * 2**20},
            "Failed",
            "OutOfMemory",
            "used 70 MiB: more than resources.memoryMiB allows",
            id="out of memory",
        ),
    ],
)
def test_the_way_it_ended_decides(frame: dict[str, Any], outcome: str, reason: str, message: str) -> None:
    ended = natural(exit_frame("u/1", at=EPOCH, **frame))
    assert (ended.outcome, ended.reason, ended.message) == (outcome, reason, message)
    assert ended.exit_code == frame.get("code", 0)


@pytest.mark.parametrize(
    ("frame", "at", "reason"),
    [
        pytest.param({}, EPOCH + 1, EndReason.TIMED_OUT, id="it went quietly"),
        pytest.param({"code": None, "signal": 15}, EPOCH + 1, EndReason.TIMED_OUT, id="it was killed"),
        pytest.param({"supervisorLost": True}, EPOCH + 1, EndReason.TIMED_OUT, id="its supervisor did not survive it"),
        pytest.param({}, EPOCH - 1, EndReason.COMPLETED, id="it had ended before"),
    ],
)
def test_a_stop_decides_what_ends_after_it(frame: dict[str, Any], at: float, reason: EndReason) -> None:
    assert judge(natural(exit_frame("u/1", at=at, **frame)), TIMED_OUT, sent=Instant(EPOCH)).reason is reason


CODE_DECIDED = {**ERROR, "types": ["Bad", "app.errors.Bad", "ValueError"], "final": True, "retryAfterSeconds": 30}


def test_what_the_code_said_is_passed_on() -> None:
    ended = natural(exit_frame("u/1", at=EPOCH, code=1, error=CODE_DECIDED))
    assert ended.error_types == ("Bad", "app.errors.Bad", "ValueError")
    assert (ended.final, ended.retry_after) == (True, 30.0)
    silent = natural(exit_frame("u/1", at=EPOCH, code=1, error=ERROR))
    assert (silent.final, silent.retry_after) == (False, None)


def test_what_the_code_said_counts_for_nothing_when_it_was_stopped() -> None:
    frame = exit_frame("u/1", at=EPOCH + 1, code=1, error=CODE_DECIDED)
    ended = judge(natural(frame), TIMED_OUT, sent=Instant(EPOCH))
    assert (ended.error_types, ended.final, ended.retry_after, ended.message) == ((), False, None, "too long")


@pytest.mark.parametrize("stop", [None, TIMED_OUT])
def test_exit_code_and_signal_are_recorded_however_it_ended(stop: Stop | None) -> None:
    killed = judge(natural(exit_frame("u/1", at=EPOCH + 1, code=None, signal=9)), stop, sent=Instant(EPOCH))
    assert (killed.exit_code, killed.signal) == (None, 9)
    left = judge(natural(exit_frame("u/1", at=EPOCH + 1, code=143)), stop, sent=Instant(EPOCH))
    assert (left.exit_code, left.signal) == (143, None)


def test_what_had_no_process_waits_a_little_and_never_started() -> None:
    ended = natural(exit_frame("u/1", at=EPOCH, code=None, supervisorLost=True, exhausted=True))
    assert (ended.retry_after, ended.started) == (5.0, None)


def test_what_is_stopped_has_no_result() -> None:
    assert judge(natural(exit_frame("u/1", at=EPOCH + 1, result=1)), TIMED_OUT, sent=Instant(EPOCH)).result is None


@pytest.mark.parametrize("result", [0, "", [], {}, False, {"a": [1, None, "ü"]}, 2**63 - 1])
def test_a_result_is_kept_as_it_is(result: Any) -> None:
    assert natural(exit_frame("u/1", at=EPOCH, result=result)).result == result


@pytest.mark.parametrize(
    ("result", "says"),
    [
        pytest.param(2**63, "64 bits", id="beyond 64 bits"),
        pytest.param({"n": [-(2**70)]}, "64 bits", id="far below"),
        pytest.param("x" * 33_000, "32768 bytes", id="too large"),
        pytest.param(float("inf"), "JSON", id="infinite"),
        pytest.param("\ud800", "JSON", id="half a surrogate pair"),
    ],
)
def test_a_result_that_cannot_be_stored_exactly_is_refused(result: Any, says: str) -> None:
    ended = natural(exit_frame("u/1", at=EPOCH, result=result))
    assert ended.reason is EndReason.RESULT_REJECTED
    assert says in ended.message
    assert ended.result is None


def test_texts_are_bounded_and_encodable() -> None:
    frame = exit_frame("u/1", at=EPOCH, code=1, tail="ü\ud800" * 5_000, error={**ERROR, "message": "\udfff" * 5_000})
    ended = natural(frame)
    assert len(ended.log_tail.encode()) <= 4_096
    assert len(ended.message) <= 1_024
    ended.message.encode()


def test_what_was_never_started_has_no_start_time() -> None:
    assert natural(exit_frame("u/1", at=EPOCH, startError="no")).started is None


@pytest.mark.parametrize("missing", ["startTime", "endTime", "exitCode", "tail"])
def test_a_frame_that_is_not_whole_is_an_error(missing: str) -> None:
    frame = exit_frame("u/1", at=EPOCH)
    del frame[missing]  # type: ignore[misc]
    with pytest.raises(KeyError):
        natural(frame)
