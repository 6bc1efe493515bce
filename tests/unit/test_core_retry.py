from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.core.phase import Phase
from taskmaster.core.policy import BUILT_IN, Backoff, Jitter, RetryPolicy
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Again, Finish, Outcome, RetryDecision, Spent, backoff_delay, next_attempt

EXACT = Backoff(initial_seconds=2, factor=3, max_seconds=100, jitter=Jitter.NONE)
POLICY = RetryPolicy(limit=2, worker_loss_limit=2, interruption_limit=1, backoff=EXACT)

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
            Finish(Phase.FAILED, EndReason.TIMED_OUT, Spent(3)),
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
            Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(0, 3)),
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
            Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(0, 0, 2)),
            id="interruptions-exhausted",
        ),
    ],
)
def test_what_follows_an_attempt(outcome: Outcome, reason: EndReason, spent: Spent, expected: RetryDecision) -> None:
    assert next_attempt(POLICY, spent, outcome, reason, random=Random(1)) == expected


@pytest.mark.parametrize("outcome", [FAILED, LOST, INTERRUPTED])
def test_budget_of_nothing_ends_the_task_at_once(outcome: Outcome) -> None:
    none = RetryPolicy(limit=0, worker_loss_limit=0, interruption_limit=0)
    assert isinstance(next_attempt(none, Spent(), outcome, EndReason.ERROR, random=Random(1)), Finish)


@pytest.mark.parametrize(
    ("outcome", "attempts"), [(FAILED, 4), (LOST, 6), (INTERRUPTED, 21)], ids=["failures", "losses", "interruptions"]
)
def test_built_in_budgets_count_retries_so_a_task_has_one_attempt_more(outcome: Outcome, attempts: int) -> None:
    spent = Spent()
    made = 0
    decision: RetryDecision = Again(0.0, spent)
    while isinstance(decision, Again):
        made += 1
        decision = next_attempt(BUILT_IN.retry, decision.spent, outcome, EndReason.ERROR, random=Random(1))
    assert made == attempts


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
