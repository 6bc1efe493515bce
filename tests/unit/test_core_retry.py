from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.core.phase import Phase
from taskmaster.core.policy import BUILT_IN, Backoff, Jitter, Policy, RetryPolicy, RetryRule, RuleAction, Timeouts
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import (
    Again,
    AttemptEnd,
    Finish,
    Outcome,
    RetryDecision,
    Spent,
    backoff_delay,
    matching_rule,
    next_attempt,
)

EXACT = Backoff(initial_seconds=2, factor=3, max_seconds=100, jitter=Jitter.NONE)
POLICY = Policy(RetryPolicy(limit=2, worker_loss_limit=2, interruption_limit=1, backoff=EXACT))


def follows(policy: Policy, spent: Spent, end: AttemptEnd, *, seconds_left: float | None = None) -> RetryDecision:
    return next_attempt(policy, spent, end, seconds_left=seconds_left, random=Random(1))


FAILED, LOST, INTERRUPTED = Outcome.FAILED, Outcome.WORKER_LOST, Outcome.INTERRUPTED


@pytest.mark.parametrize(
    ("outcome", "reason", "spent", "expected"),
    [
        pytest.param(
            Outcome.SUCCEEDED,
            EndReason.COMPLETED,
            Spent(9, 9, 9),
            Finish(Phase.SUCCEEDED, EndReason.COMPLETED, Spent(9, 9, 9)),
            id="success-ends-and-charges-nothing",
        ),
        pytest.param(
            Outcome.RELEASED,
            EndReason.INTERRUPTED,
            Spent(9, 9, 9),
            Again(0.0, Spent(9, 9, 9)),
            id="release-charges-nothing-whatever-is-spent",
        ),
        pytest.param(FAILED, EndReason.EXIT_CODE, Spent(), Again(2.0, Spent(1)), id="first-failure-waits-the-initial"),
        pytest.param(FAILED, EndReason.EXIT_CODE, Spent(1), Again(6.0, Spent(2)), id="second-failure-waits-longer"),
        pytest.param(
            FAILED,
            EndReason.TIMED_OUT,
            Spent(2),
            Finish(Phase.FAILED, EndReason.TIMED_OUT, Spent(3), dead_lettered=True),
            id="failures-exhausted-keep-the-reason",
        ),
        pytest.param(
            FAILED, EndReason.EXIT_CODE, Spent(0, 9, 9), Again(2.0, Spent(1, 9, 9)), id="budgets-are-separate-failures"
        ),
        pytest.param(
            LOST, EndReason.WORKER_LOST, Spent(), Again(0.0, Spent(0, 1)), id="first-loss-is-followed-at-once"
        ),
        pytest.param(
            LOST, EndReason.WORKER_LOST, Spent(0, 1), Again(2.0, Spent(0, 2)), id="second-loss-waits-the-initial"
        ),
        pytest.param(
            LOST,
            EndReason.WORKER_LOST,
            Spent(0, 2),
            Finish(
                Phase.FAILED,
                EndReason.BUDGET_EXHAUSTED,
                Spent(0, 3),
                dead_lettered=True,
                note="retry.workerLossLimit = 2 is used up",
            ),
            id="losses-exhausted",
        ),
        pytest.param(
            LOST, EndReason.WORKER_LOST, Spent(2, 0, 1), Again(0.0, Spent(2, 1, 1)), id="budgets-are-separate-losses"
        ),
        pytest.param(
            INTERRUPTED,
            EndReason.INTERRUPTED,
            Spent(),
            Again(0.0, Spent(0, 0, 1)),
            id="interruption-is-followed-at-once",
        ),
        pytest.param(
            INTERRUPTED,
            EndReason.INTERRUPTED,
            Spent(0, 0, 1),
            Finish(
                Phase.FAILED,
                EndReason.BUDGET_EXHAUSTED,
                Spent(0, 0, 2),
                dead_lettered=True,
                note="retry.interruptionLimit = 1 is used up",
            ),
            id="interruptions-exhausted",
        ),
        pytest.param(
            Outcome.CANCELLED,
            EndReason.CANCELLED,
            Spent(1, 1, 1),
            Finish(Phase.CANCELLED, EndReason.CANCELLED, Spent(1, 1, 1)),
            id="cancelled-ends-and-charges-nothing",
        ),
        pytest.param(
            Outcome.SUSPENDED,
            EndReason.SUSPENDED,
            Spent(9, 9, 9),
            Again(0.0, Spent(9, 9, 9)),
            id="suspended-charges-nothing-whatever-is-spent",
        ),
    ],
)
def test_what_follows_an_attempt(outcome: Outcome, reason: EndReason, spent: Spent, expected: RetryDecision) -> None:
    assert follows(POLICY, spent, AttemptEnd(outcome, reason)) == expected


@pytest.mark.parametrize("outcome", [FAILED, LOST, INTERRUPTED])
def test_budget_of_nothing_ends_the_task_at_once(outcome: Outcome) -> None:
    none = Policy(RetryPolicy(limit=0, worker_loss_limit=0, interruption_limit=0))
    assert isinstance(follows(none, Spent(), AttemptEnd(outcome, EndReason.ERROR)), Finish)


@pytest.mark.parametrize(
    ("outcome", "attempts"), [(FAILED, 4), (LOST, 6), (INTERRUPTED, 21)], ids=["failures", "losses", "interruptions"]
)
def test_built_in_budgets_count_retries_so_a_task_has_one_attempt_more(outcome: Outcome, attempts: int) -> None:
    spent = Spent()
    made = 0
    decision: RetryDecision = Again(0.0, spent)
    while isinstance(decision, Again):
        made += 1
        decision = follows(BUILT_IN, decision.spent, AttemptEnd(outcome, EndReason.ERROR))
    assert made == attempts


FAILURE = AttemptEnd(FAILED, EndReason.EXIT_CODE, exit_code=3)
RUNNER_DIED = AttemptEnd(LOST, EndReason.WORKER_LOST, runner_died=True)


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        pytest.param({"exit_codes": (1, 3)}, True, id="exit-code"),
        pytest.param({"exit_codes": (1,)}, False, id="other-exit-code"),
        pytest.param({"signals": (3,)}, False, id="a-signal-is-no-exit-code"),
        pytest.param({"reasons": ("Signal", "ExitCode")}, True, id="reason"),
        pytest.param({"reasons": ("Signal",), "exit_codes": (3,)}, True, id="any-list-is-enough"),
        pytest.param({"error_types": ("OSError",)}, True, id="base-class"),
        pytest.param({"error_types": ("http.client.RemoteDisconnected",)}, True, id="qualified"),
        pytest.param({"error_types": ("Error",)}, False, id="no-part-of-a-name"),
        pytest.param({"http_statuses": (503,)}, False, id="no-status"),
        pytest.param({}, False, id="empty"),
    ],
)
def test_a_rule_matches_what_happened(rule: dict[str, Any], matches: bool) -> None:
    types = ("RemoteDisconnected", "http.client.RemoteDisconnected", "OSError")
    end = replace(FAILURE, error_types=types)
    found = matching_rule((RetryRule("r", RuleAction.FAIL, **rule),), end)
    assert (found is not None) is matches


@pytest.mark.parametrize("reason", [EndReason.TIMED_OUT, EndReason.STALLED, EndReason.OUT_OF_MEMORY])
def test_the_signal_by_which_we_killed_it_is_not_the_tasks_own(reason: EndReason) -> None:
    rules = (RetryRule("s", RuleAction.FAIL, signals=(9,), exit_codes=(143,)),)
    assert matching_rule(rules, AttemptEnd(FAILED, reason, signal=9)) is None
    assert matching_rule(rules, AttemptEnd(FAILED, reason, exit_code=143)) is None
    assert matching_rule(rules, AttemptEnd(FAILED, EndReason.SIGNAL, signal=9)) is rules[0]


def test_a_rule_matches_signals_and_http_statuses() -> None:
    rules = (RetryRule("s", RuleAction.FAIL, signals=(11,)), RetryRule("h", RuleAction.FAIL, http_statuses=(404,)))
    assert matching_rule(rules, AttemptEnd(FAILED, EndReason.SIGNAL, signal=11)) is rules[0]
    assert matching_rule(rules, AttemptEnd(FAILED, EndReason.HTTP_STATUS, http_status=404)) is rules[1]


def ruled(*rules: tuple[str, RuleAction, int]) -> Policy:
    made = tuple(RetryRule(name, action, exit_codes=(code,)) for name, action, code in rules)
    return replace(POLICY, retry=replace(POLICY.retry, rules=made))


def test_the_first_rule_that_matches_decides() -> None:
    policy = ruled(("other", RuleAction.FAIL, 1), ("first", RuleAction.FAIL, 3), ("second", RuleAction.RETRY, 3))
    assert follows(policy, Spent(), FAILURE) == Finish(
        Phase.FAILED, EndReason.RULE_MATCHED, Spent(1), note="retry rule first"
    )


def test_a_rule_that_says_retry_stays_within_the_budget() -> None:
    policy = ruled(("first", RuleAction.RETRY, 3), ("second", RuleAction.FAIL, 3))
    assert follows(policy, Spent(), FAILURE) == Again(2.0, Spent(1))
    assert isinstance(follows(policy, Spent(2), FAILURE), Finish)


@pytest.mark.parametrize("outcome", [LOST, INTERRUPTED, Outcome.SUSPENDED, Outcome.RELEASED])
def test_rules_are_for_failures_of_the_task_itself(outcome: Outcome) -> None:
    rule = RetryRule("all", RuleAction.FAIL, reasons=tuple(EndReason))
    policy = replace(POLICY, retry=replace(POLICY.retry, rules=(rule,)))
    assert isinstance(follows(policy, Spent(), AttemptEnd(outcome, EndReason.WORKER_LOST)), Again)


def test_the_task_may_say_when_it_wants_to_be_tried_again() -> None:
    policy = ruled(("never", RuleAction.FAIL, 3))
    assert follows(policy, Spent(), replace(FAILURE, retry_after=77.0)) == Again(77.0, Spent(1))
    assert isinstance(follows(policy, Spent(2), replace(FAILURE, retry_after=77.0)), Finish)


def test_a_server_that_says_when_to_ask_again_does_not_say_whether_to() -> None:
    rule = RetryRule("quota", RuleAction.FAIL, http_statuses=(429,))
    policy = replace(POLICY, retry=replace(POLICY.retry, rules=(rule,)))
    busy = AttemptEnd(FAILED, EndReason.HTTP_STATUS, http_status=429, retry_after=77.0)
    assert isinstance(follows(policy, Spent(), busy), Finish)
    assert follows(policy, Spent(), replace(busy, http_status=503)) == Again(77.0, Spent(1))


def test_the_task_may_say_that_another_attempt_makes_no_sense() -> None:
    policy = ruled(("always", RuleAction.RETRY, 3))
    assert follows(policy, Spent(), replace(FAILURE, final=True)) == Finish(
        Phase.FAILED, EndReason.EXIT_CODE, Spent(1), dead_lettered=False
    )


def test_a_release_may_ask_for_a_pause() -> None:
    end = AttemptEnd(Outcome.RELEASED, EndReason.INTERRUPTED, retry_after=5.0)
    assert follows(POLICY, Spent(1, 1, 1), end) == Again(5.0, Spent(1, 1, 1))


@pytest.mark.parametrize(
    ("end", "seconds_left", "finished"),
    [
        pytest.param(FAILURE, 2.1, False, id="in-time"),
        pytest.param(FAILURE, 2.0, True, id="too-late"),
        pytest.param(AttemptEnd(INTERRUPTED, EndReason.INTERRUPTED), 0.1, False, id="at-once-is-in-time"),
        pytest.param(AttemptEnd(INTERRUPTED, EndReason.INTERRUPTED), 0.0, True, id="over"),
        pytest.param(RUNNER_DIED, -5.0, True, id="long-over"),
        pytest.param(AttemptEnd(Outcome.SUSPENDED, EndReason.SUSPENDED), -5.0, False, id="suspension-stops-the-clock"),
        pytest.param(AttemptEnd(Outcome.CANCELLED, EndReason.CANCELLED), -5.0, False, id="cancelled-is-cancelled"),
    ],
)
def test_no_attempt_begins_when_the_total_time_is_over(end: AttemptEnd, seconds_left: float, finished: bool) -> None:
    policy = replace(POLICY, timeouts=Timeouts(total_seconds=60))
    decision = follows(policy, Spent(), end, seconds_left=seconds_left)
    timed_out = isinstance(decision, Finish) and decision.reason is EndReason.TIMED_OUT
    assert timed_out is finished
    if isinstance(decision, Finish) and finished:
        assert decision.dead_lettered
        assert "timeouts.totalSeconds = 60" in decision.note


def test_a_task_that_kills_its_runner_three_times_in_a_row_is_given_up() -> None:
    policy = replace(POLICY, retry=replace(POLICY.retry, worker_loss_limit=100))
    first = follows(policy, Spent(), RUNNER_DIED)
    second = follows(policy, first.spent, RUNNER_DIED)
    assert isinstance(second, Again)
    assert second.spent == Spent(worker_losses=2, runner_deaths=2)
    third = follows(policy, second.spent, RUNNER_DIED)
    assert isinstance(third, Finish)
    assert (third.phase, third.reason, third.dead_lettered) == (Phase.FAILED, EndReason.RUNNER_KILLED, True)
    assert third.note.startswith("the runner container died under this Task 3 times in a row")


@pytest.mark.parametrize("outcome", [FAILED, INTERRUPTED, LOST, Outcome.SUSPENDED])
def test_an_attempt_that_ends_otherwise_clears_the_suspicion(outcome: Outcome) -> None:
    decision = follows(BUILT_IN, Spent(runner_deaths=2), AttemptEnd(outcome, EndReason.WORKER_LOST))
    assert decision.spent.runner_deaths == 0


def test_an_attempt_that_never_began_says_nothing_about_the_suspicion() -> None:
    end = AttemptEnd(Outcome.RELEASED, EndReason.INTERRUPTED)
    assert follows(BUILT_IN, Spent(runner_deaths=2), end).spent.runner_deaths == 2


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 2), (2, 6), (3, 18), (4, 54), (5, 100), (6, 100), (66, 100), (1_000_000_000, 100)]
)
def test_backoff_grows_by_the_factor_and_is_capped(failures: int, delay: float) -> None:
    assert backoff_delay(EXACT, failures, Random(1)) == delay


@pytest.mark.parametrize(
    ("backoff", "delay"),
    [
        pytest.param(replace(EXACT, initial_seconds=0), 0, id="no-initial"),
        pytest.param(replace(EXACT, max_seconds=0), 0, id="no-maximum"),
        pytest.param(replace(EXACT, initial_seconds=500), 100, id="initial-above-maximum"),
        pytest.param(replace(EXACT, factor=1), 2, id="constant"),
        pytest.param(Backoff(31_536_000, 100, 31_536_000, Jitter.NONE), 31_536_000, id="largest"),
    ],
)
def test_backoff_at_the_edges_of_what_a_task_may_say(backoff: Backoff, delay: float) -> None:
    assert backoff_delay(backoff, 10_000, Random(1)) == delay


@given(st.integers(0, 2**32), st.integers(1, 10_000), st.integers(0, 400), st.integers(1, 100), st.integers(0, 1_000))
def test_full_jitter_lies_between_nothing_and_the_exact_backoff(
    seed: int, failures: int, initial: int, factor: int, longest: int
) -> None:
    backoff = Backoff(initial, factor, longest, Jitter.FULL)
    exact = backoff_delay(replace(backoff, jitter=Jitter.NONE), failures, Random(0))
    assert 0 <= backoff_delay(backoff, failures, Random(seed)) <= exact
    assert backoff_delay(backoff, failures, Random(seed)) == backoff_delay(backoff, failures, Random(seed))


def test_full_jitter_spreads_over_the_whole_backoff() -> None:
    random = Random(7)
    delays = sorted(backoff_delay(Backoff(), 4, random) for _ in range(2_000))  # exact: 16 s
    assert delays[0] < 0.5
    assert delays[-1] > 15.5
    assert 7 < sum(delays) / len(delays) < 9
