"""The write protocol: what each patch tests, and what it leaves, applied as the API server applies it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.builders import EPOCH, assignment, held_task, task, task_object, worker
from tests.sim.json_patch import apply_json_patch

from taskmaster.api import decode, patches
from taskmaster.api.models.taskstatus import TaskStatus
from taskmaster.api.times import to_wire
from taskmaster.core.phase import TERMINAL, IllegalMove, Phase
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, StopReason
from taskmaster.kube.errors import Unprocessable

Object = dict[str, Any]
Ops = Sequence[patches.Operation]

NOW = Instant(EPOCH + 100)
STARTED = Instant(EPOCH + 90)
HOLDER = Holder("w", "uid-of-w", "i1")
FAILED = patches.Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", NOW, STARTED, "tail", exit_code=3)
DONE = patches.Ended(Outcome.SUCCEEDED, EndReason.COMPLETED, "", NOW, STARTED, "tail", {"a": 1}, exit_code=0)
LOST = patches.Ended(Outcome.WORKER_LOST, EndReason.WORKER_LOST, "the pod is gone", NOW)


def stored(status: Object | None = None, *, generation: int = 1) -> Object:
    made = task_object()
    made["metadata"]["generation"] = generation
    made["status"] |= status or {}
    return made


def pending(**status: Any) -> Object:
    return stored(status)


def assigned(**status: Any) -> Object:
    return stored({"phase": "Assigned", "attempt": 1, "assignment": assignment(), **status})


def running(**status: Any) -> Object:
    return assigned(phase="Running", startTime=to_wire(STARTED), **status)


def assign(on: Object) -> Ops:
    return patches.assign(decode.task(on), worker(), now=NOW)


def start(on: Object) -> Ops:
    return patches.start(on["metadata"]["uid"], on["status"]["attempt"], HOLDER, started=STARTED)


def finish(on: Object, ended: patches.Ended = DONE) -> Ops:
    known = decode.task(on)
    phase = Phase.SUCCEEDED if ended.outcome is Outcome.SUCCEEDED else Phase.FAILED
    decision = Finish(phase, ended.reason, known.spent)
    return patches.finish(known.uid, known.attempt, HOLDER, ended, decision, known.attempts, known.spent)


def again(on: Object, ended: patches.Ended = FAILED, *, delay: float = 2.5) -> Ops:
    known = decode.task(on)
    decision = Again(delay, replace(known.spent, failures=known.spent.failures + 1))
    return patches.again(known.uid, known.attempt, HOLDER, ended, decision, known.attempts, known.spent)


def requeue(on: Object) -> Ops:
    known = decode.task(on)
    return patches.requeue(known, LOST, Again(0.0, replace(known.spent, worker_losses=known.spent.worker_losses + 1)))


def give_up(on: Object) -> Ops:
    return patches.requeue(decode.task(on), LOST, Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(0, 6)))


SAVED = patches.Saved(
    progress={"current": 1, "total": 2, "message": "m"},
    checkpoint={"attempt": 1, "time": to_wire(NOW), "data": {"a": [1]}},
)


def save(on: Object) -> Ops:
    return patches.save(on["metadata"]["uid"], on["status"]["attempt"], HOLDER, SAVED)


def request_stop(on: Object) -> Ops:
    return patches.request_stop(decode.task(on), StopReason.TIMED_OUT, now=NOW)


def cancel(on: Object) -> Ops:
    return patches.end_waiting(decode.task(on), Phase.CANCELLED, EndReason.CANCELLED, "cancelled", now=NOW)


def hold(on: Object) -> Ops:
    return patches.hold(decode.task(on), now=NOW)


def resume(on: Object) -> Ops:
    return patches.resume(decode.task(on), now=NOW)


def explain(on: Object) -> Ops:
    return patches.explain(decode.task(on), PendingReason.NO_FREE_SLOT, "all slots are taken", now=NOW)


def observe(on: Object) -> Ops:
    return patches.observe_generation(decode.task(on))


def status_after(on: Object, ops: Ops) -> Object:
    """What is stored afterwards, which the schema must be able to hold."""
    after = apply_json_patch(on, ops)
    assert {key: value for key, value in after.items() if key != "status"} == {
        key: value for key, value in on.items() if key != "status"
    }
    TaskStatus.model_validate(after["status"])
    known = {field.alias or name for name, field in TaskStatus.model_fields.items()}
    assert set(after["status"]) <= known
    result: Object = after["status"]
    return result


OTHER_POD = {"assignment": {**assignment(), "podUID": "another"}}
OTHER_LIFE = {"assignment": {**assignment(), "incarnation": "another"}}

Change = Callable[[Object], None]


def in_status(**changes: Any) -> Change:
    return lambda obj: obj["status"].update(changes)


def recreated(obj: Object) -> None:
    obj["metadata"]["uid"] = "another"


def edited(obj: Object) -> None:
    obj["metadata"]["generation"] += 1


GUARDS: list[tuple[str, Object, Callable[[Object], Ops], dict[str, Change]]] = [
    (
        "assign",
        pending(),
        assign,
        {
            "recreated": recreated,
            "edited": edited,
            "assigned-by-another": in_status(phase="Assigned", attempt=1, assignment=assignment("other")),
            "attempt-moved-on": in_status(attempt=1),
        },
    ),
    (
        "start",
        assigned(),
        start,
        {
            "recreated": recreated,
            "already-running": in_status(phase="Running"),
            "finished": in_status(phase="Succeeded"),
            "next-attempt": in_status(attempt=2),
            "other-pod": in_status(**OTHER_POD),
            "other-incarnation": in_status(**OTHER_LIFE),
        },
    ),
    *(
        (
            name,
            state,
            make,
            {
                "recreated": recreated,
                "next-attempt": in_status(attempt=2),
                "other-pod": in_status(**OTHER_POD),
                "other-incarnation": in_status(**OTHER_LIFE),
                "taken-back": lambda obj: obj["status"].pop("assignment"),
            },
        )
        for name, make in (("finish", finish), ("again", again))
        for state in (assigned(), running())
    ),
    (
        "save",
        running(),
        save,
        {
            "recreated": recreated,
            "not-reported": in_status(phase="Assigned"),
            "finished": in_status(phase="Failed"),
            "next-attempt": in_status(attempt=2),
            "other-pod": in_status(**OTHER_POD),
            "other-incarnation": in_status(**OTHER_LIFE),
        },
    ),
    (
        "request-stop",
        running(),
        request_stop,
        {
            "recreated": recreated,
            "finished": in_status(phase="Succeeded"),
            "next-attempt": in_status(attempt=2),
        },
    ),
    *(
        (
            name,
            pending(),
            make,
            {
                "recreated": recreated,
                "edited": edited,
                "assigned": in_status(phase="Assigned"),
                "tried-meanwhile": in_status(attempt=1),
            },
        )
        for name, make in (("cancel", cancel), ("hold", hold), ("resume", resume))
    ),
    *(
        (
            name,
            running(),
            make,
            {
                "recreated": recreated,
                "finished": in_status(phase="Succeeded"),
                "other-phase": in_status(phase="Assigned"),
                "next-attempt": in_status(attempt=2),
                "other-pod": in_status(**OTHER_POD),
                "other-incarnation": in_status(**OTHER_LIFE),
            },
        )
        for name, make in (("requeue", requeue), ("give-up", give_up))
    ),
    (
        "explain",
        pending(),
        explain,
        {
            "recreated": recreated,
            "edited": edited,
            "assigned": in_status(phase="Assigned"),
            "tried-meanwhile": in_status(attempt=1),
        },
    ),
    ("observe-generation", stored(generation=2), observe, {"recreated": recreated, "edited": edited}),
]


@pytest.mark.parametrize(
    ("state", "make", "change"),
    [
        pytest.param(state, make, change, id=f"{name}-{state['status']['phase']}-{what}")
        for name, state, make, changes in GUARDS
        for what, change in changes.items()
    ],
)
def test_write_is_refused_when_the_task_is_not_as_it_was(
    state: Object, make: Callable[[Object], Ops], change: Change
) -> None:
    ops = make(state)
    apply_json_patch(state, ops)
    moved = apply_json_patch(state, [])
    change(moved)
    with pytest.raises(Unprocessable):
        apply_json_patch(moved, ops)


@pytest.mark.parametrize(("state", "make"), [pytest.param(s, m, id=n) for n, s, m, _ in GUARDS])
def test_every_write_tests_the_uid_first_of_all_or_right_after_the_phase(
    state: Object, make: Callable[[Object], Ops]
) -> None:
    ops = list(make(state))
    tests = [op["path"] for op in ops if op["op"] == "test"]
    assert "/metadata/uid" in tests[:2]
    assert [op["op"] for op in ops[: len(tests)]] == ["test"] * len(tests)
    assert all(op["path"].startswith("/status/") for op in ops if op["op"] != "test")


@pytest.mark.parametrize(
    ("state", "make"), [(pending(), assign), (assigned(), start), (running(), finish), (running(), again)]
)
def test_no_move_can_be_made_twice(state: Object, make: Callable[[Object], Ops]) -> None:
    ops = make(state)
    once = apply_json_patch(state, ops)
    if make is finish:
        # The assignment stays, so it is the server's rule (and the agent's reading) that keeps a record from changing.
        return
    with pytest.raises(Unprocessable):
        apply_json_patch(once, ops)


def test_assign_leaves_all_that_the_worker_needs() -> None:
    state = stored({"reason": "NoFreeSlot", "message": "wait", "attempt": 4}, generation=3)
    after = status_after(state, assign(state))
    assert (after["phase"], after["attempt"], after["observedGeneration"]) == ("Assigned", 5, 3)
    assert (after["reason"], after["message"]) == ("", "")
    assert after["assignment"] == {**assignment(), "assignedTime": to_wire(NOW)}
    assert [(each["type"], each["status"]) for each in after["conditions"]] == [("Scheduled", "True")]


def test_assign_ends_the_backoff() -> None:
    state = pending(notBeforeTime=to_wire(EPOCH), reason="BackingOff", attempt=1)
    assert "notBeforeTime" not in status_after(state, assign(state))


def test_start_says_since_when() -> None:
    after = status_after(assigned(), start(assigned()))
    assert (after["phase"], after["startTime"]) == ("Running", to_wire(STARTED))


@pytest.mark.parametrize("state", [assigned(), running()], ids=["short", "long"])
def test_success_is_the_whole_record_in_one_write(state: Object) -> None:
    after = status_after(state, finish(state))
    assert (after["phase"], after["reason"], after["exitCode"], after["result"]) == (
        "Succeeded",
        "Completed",
        0,
        {"a": 1},
    )
    assert (after["startTime"], after["completionTime"], after["logTail"]) == (to_wire(STARTED), to_wire(NOW), "tail")
    assert after["assignment"] == assignment()
    assert [(each["type"], each["status"]) for each in after["conditions"]] == [
        ("Scheduled", "True"),
        ("Succeeded", "True"),
        ("Finished", "True"),
    ]
    assert after["attempts"] == [
        {
            "attempt": 1,
            "worker": "w",
            "startTime": to_wire(STARTED),
            "endTime": to_wire(NOW),
            "outcome": "Succeeded",
            "reason": "Completed",
            "exitCode": 0,
        }
    ]
    assert not {"failures", "workerLosses", "interruptions"} & set(after)


@pytest.mark.parametrize("result", [0, False, "", [], {}], ids=repr)
def test_result_that_is_false_is_a_result(result: Any) -> None:
    after = status_after(running(), finish(running(), replace(DONE, result=result)))
    assert after["result"] == result


def test_failure_also_stalls_and_has_no_result() -> None:
    after = status_after(running(), finish(running(), FAILED))
    assert (after["phase"], after["reason"], after["message"], after["exitCode"]) == (
        "Failed",
        "ExitCode",
        "exit code 3",
        3,
    )
    assert [(each["type"], each["status"], each["reason"]) for each in after["conditions"]] == [
        ("Scheduled", "True", "Assigned"),
        ("Succeeded", "False", "ExitCode"),
        ("Finished", "True", "ExitCode"),
        ("Stalled", "True", "ExitCode"),
    ]
    assert "result" not in after


def test_retry_returns_to_pending_without_its_worker() -> None:
    after = status_after(running(), again(running()))
    assert (after["phase"], after["reason"], after["message"]) == ("Pending", "BackingOff", "attempt 1: exit code 3")
    assert "assignment" not in after
    assert after["notBeforeTime"] == to_wire(NOW + 2.5)
    assert (after["attempt"], after["failures"]) == (1, 1)
    assert [(each["type"], each["status"]) for each in after["conditions"]] == [("Scheduled", "False")]
    assert [(each["attempt"], each["outcome"]) for each in after["attempts"]] == [(1, "Failed")]


def test_retry_without_a_delay_waits_for_nothing() -> None:
    after = status_after(running(), again(running(), delay=0.0))
    assert after["reason"] == ""
    assert "notBeforeTime" not in after


def test_requeue_charges_the_loss_only_and_says_why() -> None:
    state = running(failures=2)
    after = status_after(state, requeue(state))
    assert (after["phase"], after["workerLosses"], after["failures"]) == ("Pending", 1, 2)
    assert after["attempts"][-1] == {
        "attempt": 1,
        "worker": "w",
        "startTime": to_wire(STARTED),
        "endTime": to_wire(NOW),
        "outcome": "WorkerLost",
        "reason": "WorkerLost",
        "message": "the pod is gone",
    }


def test_attempt_lost_before_its_start_was_reported_does_not_inherit_an_earlier_start() -> None:
    state = assigned(attempt=2, startTime=to_wire(EPOCH + 1), attempts=[{"attempt": 1, "outcome": "Failed"}])
    record = status_after(state, requeue(state))["attempts"][-1]
    assert record["attempt"] == 2
    assert "startTime" not in record


def test_giving_up_is_a_terminal_record_of_the_coordinator() -> None:
    after = status_after(running(workerLosses=5), give_up(running(workerLosses=5)))
    assert (after["phase"], after["reason"], after["workerLosses"]) == ("Failed", "BudgetExhausted", 6)
    assert after["completionTime"] == to_wire(NOW)
    assert after["attempts"][-1]["reason"] == "WorkerLost"


def test_explanation_also_answers_an_edit() -> None:
    state = stored(generation=2)
    after = status_after(state, explain(state))
    assert (after["reason"], after["message"], after["observedGeneration"]) == ("NoFreeSlot", "all slots are taken", 2)


def test_a_task_that_cannot_run_as_it_stands_is_stalled_until_it_can() -> None:
    wrong = patches.explain(decode.task(pending()), PendingReason.DEPENDENCY_CYCLE, "a -> a", now=NOW)
    stalled = apply_json_patch(pending(), wrong)
    assert [(each["type"], each["status"]) for each in stalled["status"]["conditions"]] == [("Stalled", "True")]
    mended = apply_json_patch(stalled, explain(stalled))
    assert [(each["type"], each["status"]) for each in mended["status"]["conditions"]] == [("Stalled", "False")]
    again = {**mended, "status": {**mended["status"], "conditions": []}}
    assert apply_json_patch(again, explain(again))["status"]["conditions"] == [], "nothing new is said about it"


@pytest.mark.parametrize("phase", list(Phase))
def test_edit_is_answered_in_every_phase_by_that_field_alone(phase: str) -> None:
    state = stored({"phase": phase}, generation=4)
    assert status_after(state, observe(state)) == {**state["status"], "observedGeneration": 4}


def test_an_edit_is_answered_once() -> None:
    state = stored({"phase": "Succeeded", "observedGeneration": 1}, generation=2)
    answered = apply_json_patch(state, observe(state))
    with pytest.raises(Unprocessable):
        apply_json_patch(answered, observe(state))


def test_last_ten_attempts_are_kept() -> None:
    past = [{"attempt": number, "outcome": "Failed"} for number in range(1, 11)]
    state = running(attempt=11, attempts=past)
    after = status_after(state, again(state))
    assert [each["attempt"] for each in after["attempts"]] == list(range(2, 12))


def test_long_messages_are_cut_to_what_the_schema_holds() -> None:
    long = replace(FAILED, message="ü" * 5_000)
    for ops in (finish(running(), long), again(running(), long)):
        after = status_after(running(), ops)
        assert len(after["message"]) == 1_024
        assert len(after["attempts"][-1]["message"]) == 256
        assert all(len(each["message"]) <= 1_024 for each in after["conditions"])
    explained = patches.explain(decode.task(pending()), PendingReason.NO_FREE_SLOT, "x" * 5_000, now=NOW)
    assert len(status_after(pending(), explained)["message"]) == 1_024


@pytest.mark.parametrize("make", [assign, cancel, hold, resume, explain])
@pytest.mark.parametrize("phase", ["Assigned", "Running", "Succeeded", "Failed", "Cancelled", "Skipped"])
def test_what_is_for_waiting_tasks_is_for_no_others(phase: str, make: Callable[[Object], Ops]) -> None:
    with pytest.raises(IllegalMove):
        make(assigned(phase=phase))


@pytest.mark.parametrize("phase", sorted(TERMINAL))
def test_finished_task_cannot_be_requeued(phase: str) -> None:
    for decision in (Again(0.0, Spent()), Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent())):
        with pytest.raises(ValueError, match="nothing holds"):
            patches.requeue(held_task(status={"phase": phase}), LOST, decision)


@pytest.mark.parametrize("phase", ["Pending", "Assigned", "Running"])
def test_only_a_finished_task_can_be_run_again(phase: str) -> None:
    with pytest.raises(IllegalMove):
        patches.run_again(held_task(status={"phase": phase}), now=NOW)


def test_the_assignment_begins_the_total_time_once_per_run() -> None:
    state = task_object(timeouts={"totalSeconds": 60})
    assert status_after(state, assign(state))["deadlineTime"] == to_wire(NOW + 60)
    state["status"]["deadlineTime"] = to_wire(EPOCH)
    assert status_after(state, assign(state))["deadlineTime"] == to_wire(EPOCH)


@pytest.mark.parametrize("make", [assign, cancel], ids=["assign", "cancel"])
def test_a_request_that_the_task_was_created_with_is_recorded_at_first_sight(make: Callable[[Object], Ops]) -> None:
    state = task_object(retryRequest="as applied")
    assert status_after(state, make(state))["observedRetryRequest"] == "as applied"
    assert "observedRetryRequest" not in status_after(pending(), make(pending()))


def test_a_stop_request_goes_with_its_attempt() -> None:
    after = status_after(running(), request_stop(running()))
    assert after["stopRequest"] == {"reason": "TimedOut", "time": to_wire(NOW)}
    state = pending(attempt=1, stopRequest=after["stopRequest"])
    assert "stopRequest" not in status_after(state, assign(state))


@pytest.mark.parametrize(
    ("make", "state"),
    [
        pytest.param(save, running(), id="by-itself"),
        pytest.param(
            lambda on: patches.start(on["metadata"]["uid"], 1, HOLDER, started=STARTED, saved=SAVED),
            assigned(),
            id="with-the-start",
        ),
        pytest.param(
            lambda on: patches.finish(
                "uid-of-t", 1, HOLDER, DONE, Finish(Phase.SUCCEEDED, DONE.reason, Spent()), (), Spent(), SAVED
            ),
            running(),
            id="with-the-end",
        ),
        pytest.param(
            lambda on: patches.again("uid-of-t", 1, HOLDER, FAILED, Again(0.0, Spent()), (), Spent(), SAVED),
            running(),
            id="with-the-retry",
        ),
    ],
)
def test_progress_and_checkpoint_are_kept(make: Callable[[Object], Ops], state: Object) -> None:
    after = status_after(state, make(state))
    assert (after["progress"], after["checkpoint"]) == (SAVED.progress, SAVED.checkpoint)


def test_nothing_new_to_save_leaves_what_was_there() -> None:
    state = running(progress=SAVED.progress, checkpoint=SAVED.checkpoint)
    after = status_after(state, again(state))
    assert (after["progress"], after["checkpoint"]) == (SAVED.progress, SAVED.checkpoint)


def test_a_suspended_attempt_leaves_a_held_task() -> None:
    suspended = replace(FAILED, outcome=Outcome.SUSPENDED, reason=EndReason.SUSPENDED, message="suspended")
    decision = Again(0.0, Spent())
    after = status_after(running(), patches.again("uid-of-t", 1, HOLDER, suspended, decision, (), Spent()))
    assert (after["phase"], after["reason"], after["queuedTime"]) == ("Pending", "Suspended", to_wire(NOW))
    assert {one["type"]: one["status"] for one in after["conditions"]} == {"Scheduled": "False", "Suspended": "True"}
    assert "failures" not in after


def test_resuming_moves_the_deadline_by_the_time_of_the_suspension() -> None:
    held = {"type": "Suspended", "status": "True", "reason": "Suspended", "lastTransitionTime": to_wire(NOW - 30)}
    state = pending(conditions=[held], deadlineTime=to_wire(NOW + 5), reason="Suspended")
    after = status_after(state, resume(state))
    assert (after["deadlineTime"], after["queuedTime"], after["reason"]) == (to_wire(NOW + 35), to_wire(NOW), "")


def test_a_task_that_ends_while_it_waits_says_so_in_its_conditions() -> None:
    state = stored({"notBeforeTime": to_wire(EPOCH), "attempt": 2}, generation=3)
    after = status_after(state, cancel(state))
    assert (after["phase"], after["observedGeneration"], after["completionTime"]) == ("Cancelled", 3, to_wire(NOW))
    assert {one["type"]: one["status"] for one in after["conditions"]} == {
        "Scheduled": "False",
        "Succeeded": "False",
        "Finished": "True",
    }
    assert "notBeforeTime" not in after


def test_a_dead_letter_is_marked_and_the_reason_explained() -> None:
    note = "retry.workerLossLimit = 5 is used up"
    decision = Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(0, 6), dead_lettered=True, note=note)
    after = status_after(running(), patches.requeue(decode.task(running()), LOST, decision))
    assert after["deadLettered"] is True
    assert after["message"] == f"{note}: the pod is gone"
    assert ("DeadLettered", "True") in [(one["type"], one["status"]) for one in after["conditions"]]


def test_a_new_run_begins_without_the_traces_of_the_last() -> None:
    finished = assigned(
        **{"phase": "Failed", "completionTime": to_wire(NOW), "deadLettered": True, "runNumber": 3, "attempt": 7},
        **{"failures": 4, "workerLosses": 1, "interruptions": 2, "runnerDeaths": 3, "exitCode": 1, "logTail": "x"},
        **{"result": {}, "progress": SAVED.progress, "checkpoint": SAVED.checkpoint, "deadlineTime": to_wire(NOW)},
        attempts=[{"attempt": 7, "outcome": "Failed"}],
    )
    finished["spec"]["retryRequest"] = "2"
    patch = patches.run_again(decode.task(finished), now=NOW)
    assert patch["metadata"] == {"uid": "uid-of-t", "resourceVersion": "1001"}
    after = {key: value for key, value in {**finished["status"], **patch["status"]}.items() if value is not None}
    TaskStatus.model_validate(after)
    assert after.pop("conditions")[0]["reason"] == "RunAgain"
    assert after == {
        "phase": "Pending",
        "reason": "",
        "message": "",
        "observedGeneration": 1,
        "observedRetryRequest": "2",
        "runNumber": 4,
        "attempt": 7,
        "queuedTime": to_wire(NOW),
        "deadLettered": False,
        "checkpoint": SAVED.checkpoint,
        "attempts": [{"attempt": 7, "outcome": "Failed"}],
    }
    finished["spec"]["retryRequest"] = "fresh-2"
    assert patches.run_again(decode.task(finished), now=NOW)["status"]["checkpoint"] is None


def test_task_that_nothing_holds_cannot_be_requeued() -> None:
    with pytest.raises(ValueError, match=r"team-a/t"):
        patches.requeue(task(), LOST, Again(0.0, Spent()))
