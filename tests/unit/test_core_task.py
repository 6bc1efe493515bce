from typing import Any

import pytest
from tests.builders import EPOCH, held_task, task

from taskmaster.api.times import to_wire

DONE = to_wire(EPOCH)


@pytest.mark.parametrize(
    ("phase", "ttl", "seconds"),
    [
        ("Succeeded", None, 3_600),
        ("Failed", None, 86_400),
        ("Succeeded", 5, 5),
        ("Failed", 5, 5),
        ("Succeeded", 0, 0),
    ],
)
def test_finished_task_expires_its_ttl_after_completion(phase: str, ttl: int | None, seconds: int) -> None:
    spec: dict[str, Any] = {} if ttl is None else {"ttlSecondsAfterFinished": ttl}
    assert task(status={"phase": phase, "completionTime": DONE}, **spec).expires == EPOCH + seconds


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
