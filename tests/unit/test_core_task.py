from typing import Any

import pytest
from tests.builders import EPOCH, held_task, task

from taskmaster.api.times import to_wire
from taskmaster.core.request import Request, may_run, open_request

DONE = to_wire(EPOCH)


@pytest.mark.parametrize(
    ("phase", "ttl", "seconds"),
    [
        ("Succeeded", None, 3_600),
        ("Failed", None, 86_400),
        ("Succeeded", 5, 5),
        ("Failed", 5, 5),
        ("Succeeded", 0, 0),
        ("Cancelled", None, 86_400),
        ("Skipped", None, 86_400),
    ],
)
def test_finished_task_expires_its_ttl_after_completion(phase: str, ttl: int | None, seconds: int) -> None:
    spec: dict[str, Any] = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    assert task(status={"phase": phase, "completionTime": DONE}, **spec).expires == EPOCH + seconds


def test_a_dead_letter_is_kept_for_a_week_unless_it_says_otherwise() -> None:
    status = {"phase": "Failed", "completionTime": DONE, "deadLettered": True}
    assert task(status=status).expires == EPOCH + 604_800
    assert task(status=status, ttlSecondsAfterFinished=5).expires == EPOCH + 5


SUSPENDED = {"type": "Suspended", "status": "True", "reason": "Suspended", "lastTransitionTime": to_wire(EPOCH + 1)}


@pytest.mark.parametrize(
    ("status", "expiry"),
    [
        pytest.param({}, 60, id="since-its-creation"),
        pytest.param({"queuedTime": to_wire(EPOCH + 100)}, 160, id="since-it-waits-again"),
        pytest.param({"queuedTime": to_wire(EPOCH), "notBeforeTime": to_wire(EPOCH + 30)}, 90, id="since-its-backoff"),
        pytest.param({"queuedTime": to_wire(EPOCH + 40), "notBeforeTime": to_wire(EPOCH)}, 100, id="the-later-counts"),
        pytest.param({"deadlineTime": to_wire(EPOCH + 7)}, 7, id="the-whole-run-is-over-before"),
        pytest.param({"deadlineTime": to_wire(EPOCH + 70)}, 60, id="the-whole-run-is-over-later"),
        pytest.param({"conditions": [SUSPENDED], "deadlineTime": to_wire(EPOCH)}, None, id="suspended"),
    ],
)
def test_a_task_may_wait_only_so_long(status: dict[str, Any], expiry: int | None) -> None:
    waiting = task(status=status, timeouts={"pendingSeconds": 60})
    assert waiting.expiry == (None if expiry is None else EPOCH + expiry)


def test_a_task_that_does_not_wait_has_no_expiry() -> None:
    assert task().expiry is None
    assert held_task(status={"deadlineTime": DONE}).expiry is None


@pytest.mark.parametrize(
    ("outcome", "avoided"), [("Failed", "w9"), ("WorkerLost", "w9"), ("Interrupted", None), ("Released", None)]
)
def test_the_worker_to_avoid_is_that_of_a_last_failure(outcome: str, avoided: str | None) -> None:
    records = [{"attempt": 1, "worker": "w1", "outcome": "Failed"}, {"attempt": 2, "worker": "w9", "outcome": outcome}]
    assert task(status={"attempts": records}).failed_on == avoided
    assert task().failed_on is None


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        ({}, {}, None),
        ({}, {"cancel": True}, Request.CANCEL),
        ({}, {"cancel": True, "suspend": True}, Request.CANCEL),
        ({}, {"suspend": True}, Request.HOLD),
        ({"conditions": [SUSPENDED]}, {"suspend": True}, None),
        ({"conditions": [SUSPENDED]}, {}, Request.RESUME),
        ({"conditions": [{**SUSPENDED, "status": "False"}]}, {}, None),
        ({"phase": "Running"}, {"cancel": True, "suspend": True}, None),
        ({}, {"retryRequest": "1"}, None),
        ({"phase": "Failed"}, {"retryRequest": "1"}, Request.RUN_AGAIN),
        ({"phase": "Skipped"}, {"retryRequest": "1"}, Request.RUN_AGAIN),
        ({"phase": "Succeeded", "observedRetryRequest": "1"}, {"retryRequest": "1"}, None),
        ({"phase": "Succeeded", "observedRetryRequest": "1"}, {"retryRequest": "2"}, Request.RUN_AGAIN),
        ({"phase": "Succeeded", "observedRetryRequest": "1"}, {}, None),
        ({"phase": "Failed"}, {"cancel": True, "suspend": True}, None),
    ],
)
def test_what_people_ask_and_the_coordinator_has_to_answer(
    status: dict[str, Any], spec: dict[str, Any], expected: Request | None
) -> None:
    asked = task(status=status, **spec)
    assert open_request(asked) is expected
    assert may_run(asked) is (
        status.get("phase", "Pending") == "Pending" and expected is None and "suspend" not in spec
    )


def test_unfinished_task_does_not_expire() -> None:
    assert task(ttlSecondsAfterFinished=0).expires is None
    assert held_task(status={"completionTime": DONE}).expires is None


@pytest.mark.parametrize(
    ("generation", "observed", "unanswered"),
    [(1, None, False), (2, None, True), (2, 1, True), (2, 2, False), (3, 2, True)],
)
def test_edit_is_unanswered_until_status_has_its_generation(
    generation: int, observed: int | None, unanswered: bool
) -> None:
    status = {} if observed is None else {"observedGeneration": observed}
    assert task(generation=generation, status=status).edit_unanswered is unanswered


@pytest.mark.parametrize(
    ("phase", "held"), [("Pending", False), ("Assigned", True), ("Running", True), ("Succeeded", False)]
)
def test_slot_is_taken_while_assigned_or_running(phase: str, held: bool) -> None:
    assert held_task(status={"phase": phase}).held is held
