from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import EPOCH, NAMESPACE, assignment, lease_object, task_object

from taskmaster.api import decode, names
from taskmaster.api.models.policy import ResolvedPolicy
from taskmaster.api.models.task import TaskSpec
from taskmaster.api.times import to_wire
from taskmaster.core.phase import Phase
from taskmaster.core.policy import (
    BUILT_IN,
    Backoff,
    Jitter,
    Policy,
    RetryPolicy,
    RetryRule,
    RuleAction,
    Timeouts,
    resolve,
)
from taskmaster.core.queue import Placement, Queue, RateLimit, WhenFull
from taskmaster.core.retry import Spent
from taskmaster.core.task import Holder


def test_new_task_has_the_defaults_that_the_design_names() -> None:
    found = decode.task(task_object("t"))
    assert (found.namespace, found.name, found.uid) == (NAMESPACE, "t", "uid-of-t")
    assert (found.queue, found.priority, found.phase, found.attempt, found.reason) == ("default", 0, "Pending", 0, "")
    assert (found.generation, found.observed_generation, found.created) == (1, None, EPOCH)
    assert (found.holder, found.started, found.completed, found.not_before) == (None,) * 4
    assert (found.policy, found.spent, found.attempts, found.ttl_seconds) == (BUILT_IN, Spent(), (), None)


def test_status_may_be_missing_altogether() -> None:
    stored = task_object()
    del stored["status"]
    assert decode.task(stored).phase is Phase.PENDING


def test_everything_a_running_task_says_is_read() -> None:
    stored = task_object(queue="media", priority=7, ttlSecondsAfterFinished=0)
    record = {"attempt": 2, "outcome": "Failed"}
    stored["status"] = {
        "phase": "Running",
        "reason": "Whatever",
        "attempt": 3,
        "observedGeneration": 1,
        "assignment": assignment("w", assigned=EPOCH + 1),
        "startTime": to_wire(EPOCH + 2),
        "notBeforeTime": to_wire(EPOCH + 3),
        "completionTime": to_wire(EPOCH + 4),
        "failures": 1,
        "workerLosses": 2,
        "interruptions": 3,
        "attempts": [record],
    }
    found = decode.task(stored)
    assert (found.queue, found.priority, found.ttl_seconds) == ("media", 7, 0)
    assert (found.phase, found.reason, found.attempt, found.observed_generation) == ("Running", "Whatever", 3, 1)
    assert found.holder == Holder("w", "uid-of-w", "i1")
    assert (found.started, found.not_before, found.completed) == (EPOCH + 2, EPOCH + 3, EPOCH + 4)
    assert (found.spent, found.attempts) == (Spent(1, 2, 3), (record,))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_history_of_a_finished_task_is_not_kept(phase: str) -> None:
    stored = task_object()
    stored["status"] |= {"phase": phase, "attempts": [{"attempt": 1}]}
    assert decode.task(stored).attempts == ()


def test_unknown_fields_are_ignored() -> None:
    stored = task_object(newInTheNextVersion={"a": 1}, retry={"limit": 1, "new": []}, timeouts={"newSeconds": 1})
    stored["status"] |= {"new": {"current": 1}, "assignment": {**assignment(), "new": 1}}
    found = decode.task(stored)
    assert found.policy.retry.limit == 1
    assert found.policy.timeouts == BUILT_IN.timeouts


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status", "phase"), "Paused"),
        (("status", "startTime"), "yesterday"),
        (("spec", "retry"), {"backoff": {"jitter": "Decorrelated"}}),
        (("metadata", "creationTimestamp"), "never"),
    ],
)
def test_unknown_word_in_a_known_field_raises(path: tuple[str, str], value: Any) -> None:
    stored = task_object()
    stored[path[0]][path[1]] = value
    with pytest.raises(ValueError, match=r".+"):
        decode.task(stored)


@pytest.mark.parametrize("field", ["uid", "name", "namespace", "resourceVersion", "generation", "creationTimestamp"])
def test_missing_field_that_every_object_has_raises(field: str) -> None:
    stored = task_object()
    del stored["metadata"][field]
    with pytest.raises(KeyError):
        decode.task(stored)


@pytest.mark.parametrize("field", ["worker", "podUID", "incarnation"])
def test_assignment_without_its_holder_raises(field: str) -> None:
    stored = task_object()
    stored["status"]["assignment"] = assignment()
    del stored["status"]["assignment"][field]
    with pytest.raises(KeyError):
        decode.task(stored)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, BUILT_IN),
        ({"retry": {}, "timeouts": {}}, BUILT_IN),
        ({"retry": {"backoff": {}}}, BUILT_IN),
        ({"retry": {"limit": 0}}, Policy(RetryPolicy(limit=0))),
        ({"retry": {"workerLossLimit": 0, "interruptionLimit": 0}}, Policy(RetryPolicy(3, 0, 0))),
        ({"retry": {"backoff": {"jitter": "None"}}}, Policy(RetryPolicy(backoff=Backoff(jitter=Jitter.NONE)))),
        (
            {"retry": {"backoff": {"initialSeconds": 0, "factor": 1, "maxSeconds": 0}}},
            Policy(RetryPolicy(backoff=Backoff(0, 1, 0))),
        ),
        ({"timeouts": {"graceSeconds": 0}}, Policy(timeouts=Timeouts(grace_seconds=0))),
        ({"timeouts": {"attemptSeconds": 1}}, Policy(timeouts=Timeouts(attempt_seconds=1))),
        (
            {"timeouts": {"pendingSeconds": 1, "totalSeconds": 2, "stallSeconds": 3}},
            Policy(timeouts=Timeouts(pending_seconds=1, total_seconds=2, stall_seconds=3)),
        ),
        (
            {"retry": {"rules": [{"name": "r", "action": "Fail", "onExitCodes": [64], "onHTTPStatuses": [404]}]}},
            Policy(RetryPolicy(rules=(RetryRule("r", RuleAction.FAIL, exit_codes=(64,), http_statuses=(404,)),))),
        ),
    ],
)
def test_policy_is_the_tasks_own_word_then_the_built_in_default(spec: dict[str, Any], expected: Policy) -> None:
    assert resolve(decode.overrides(spec)) == expected


def test_built_in_defaults_are_those_that_the_texts_of_the_schema_promise() -> None:
    promised = {
        "limit": BUILT_IN.retry.limit,
        "workerLossLimit": BUILT_IN.retry.worker_loss_limit,
        "interruptionLimit": BUILT_IN.retry.interruption_limit,
        "initialSeconds": BUILT_IN.retry.backoff.initial_seconds,
        "factor": BUILT_IN.retry.backoff.factor,
        "maxSeconds": BUILT_IN.retry.backoff.max_seconds,
        "jitter": BUILT_IN.retry.backoff.jitter.value,
        "attemptSeconds": BUILT_IN.timeouts.attempt_seconds,
        "graceSeconds": BUILT_IN.timeouts.grace_seconds,
    }
    definitions = TaskSpec.model_json_schema(by_alias=True)["$defs"]
    texts = {
        name: field["description"]
        for model in ("RetrySpec", "BackoffSpec", "TimeoutsSpec")
        for name, field in definitions[model]["properties"].items()
        if "Default " in field["description"]
    }
    assert {name: text.rpartition("Default ")[2].removesuffix(".") for name, text in texts.items()} == {
        name: str(value) for name, value in promised.items()
    }


SECONDS = st.none() | st.integers(1, 10_000)
RULES = st.builds(
    RetryRule,
    st.sampled_from(["a", "b"]),
    st.sampled_from(list(RuleAction)),
    st.lists(st.integers(1, 255), max_size=2).map(tuple),
    st.lists(st.integers(1, 64), max_size=2).map(tuple),
    st.lists(st.sampled_from(["OSError", "a.b.C"]), max_size=2).map(tuple),
    st.lists(st.sampled_from(["TimedOut", "Stalled"]), max_size=2).map(tuple),
    st.lists(st.integers(100, 599), max_size=2).map(tuple),
)
POLICIES = st.builds(
    Policy,
    st.builds(
        RetryPolicy,
        st.integers(0, 10_000),
        st.integers(0, 10_000),
        st.integers(0, 10_000),
        st.builds(
            Backoff, st.integers(0, 1_000), st.integers(1, 100), st.integers(0, 1_000), st.sampled_from(list(Jitter))
        ),
        st.lists(RULES, max_size=3).map(tuple),
    ),
    st.builds(Timeouts, st.integers(1, 10_000), st.integers(0, 10_000), st.none(), SECONDS, SECONDS),
)


@given(POLICIES)
def test_policy_survives_the_round_trip_through_an_assignment(policy: Policy) -> None:
    encoded = decode.encode_policy(policy)
    assert decode.assigned_policy({"policy": encoded}) == policy
    assert ResolvedPolicy.model_validate(encoded).model_dump(by_alias=True, mode="json", exclude_none=True) == encoded


def test_equal_policies_of_many_tasks_are_one_object() -> None:
    one, other = (decode.task(task_object(retry={"limit": 7})) for _ in range(2))
    assert one.policy is other.policy


def test_worker_registers_by_its_lease() -> None:
    found = decode.worker(lease_object("w", slots=3))
    assert (found.namespace, found.name, found.pod_uid, found.pool) == (NAMESPACE, "w", "uid-of-w", "pool")
    assert (found.incarnation, found.node, found.slots, found.schedulable) == ("i1", "n1", 3, True)


@pytest.mark.parametrize(
    "given_lease",
    [
        pytest.param(lease_object(state=names.DRAINING_STATE), id="draining"),
        pytest.param(lease_object(state=names.UNAVAILABLE_STATE), id="unavailable"),
        pytest.param(lease_object(state="NewWord"), id="unknown-state"),
        pytest.param(lease_object(holder=""), id="released"),
        pytest.param(lease_object(holder=names.TAKEOVER_HOLDER_PREFIX + "c"), id="taken-over"),
    ],
)
def test_worker_that_does_not_say_ready_in_its_own_name_gets_nothing(given_lease: dict[str, Any]) -> None:
    assert decode.worker(given_lease).schedulable is False


@pytest.mark.parametrize("slots", ["0", "-1", "many", "1.5", ""])
def test_worker_without_a_slot_is_none(slots: str) -> None:
    lease = lease_object()
    lease["metadata"]["annotations"][names.SLOTS_ANNOTATION] = slots
    with pytest.raises(ValueError, match=r"slot|int"):
        decode.worker(lease)


@pytest.mark.parametrize("missing", [names.SLOTS_ANNOTATION, names.POD_UID_ANNOTATION, names.INCARNATION_ANNOTATION])
def test_lease_of_something_else_is_no_worker(missing: str) -> None:
    lease = lease_object()
    del lease["metadata"]["annotations"][missing]
    with pytest.raises(KeyError):
        decode.worker(lease)


def test_a_queue_that_says_nothing_has_the_defaults_of_the_implicit_one() -> None:
    assert decode.queue({"metadata": {"name": "default"}, "spec": {}}) == Queue("default")


def test_everything_a_queue_says_is_read() -> None:
    spec = {
        "weight": 3,
        "maxRunning": 0,
        "maxPending": 5,
        "whenFull": "Reject",
        "rateLimit": {"tasks": 6, "perSeconds": 60},
        "paused": True,
        "placement": "BinPack",
        "agingSeconds": 7,
        "retry": {"limit": 1},
        "ttl": {"succeededSeconds": 0},
        "deadLetter": {"ttlSeconds": 9},
        "newInTheNextVersion": 1,
    }
    found = decode.queue({"metadata": {"name": "q"}, "spec": spec})
    assert (found.name, found.weight, found.max_running, found.max_pending) == ("q", 3, 0, 5)
    assert (found.when_full, found.placement, found.aging_seconds) == (WhenFull.REJECT, Placement.BIN_PACK, 7)
    assert (found.rate_limit, found.paused, found.drain, found.closed) == (RateLimit(0.1, 6), True, False, True)
    said = found.overrides
    assert (said.limit, said.succeeded_seconds, said.failed_seconds, said.dead_letter_seconds) == (1, 0, None, 9)


def test_a_burst_may_be_smaller_or_larger_than_what_starts_in_the_time() -> None:
    for burst in (1, 50):
        spec = {"rateLimit": {"tasks": 5, "burst": burst}}
        assert decode.queue({"metadata": {"name": "q"}, "spec": spec}).rate_limit == RateLimit(5.0, burst)


@pytest.mark.parametrize("spec", [{"placement": "Random"}, {"whenFull": "Drop"}])
def test_a_queue_with_an_unknown_word_raises(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        decode.queue({"metadata": {"name": "q"}, "spec": spec})
