import pytest

from taskmaster.core.phase import ASSIGNED_PHASES, SUCCESSORS, TERMINAL, IllegalMove, Phase, check_move

P, A, R, S, F = Phase.PENDING, Phase.ASSIGNED, Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED
C, K = Phase.CANCELLED, Phase.SKIPPED

FIRST_RUN = {(P, A), (P, F), (P, C), (P, K), (A, R), (A, P), (A, S), (A, F), (A, C), (R, P), (R, S), (R, F), (R, C)}
RUN_AGAIN = {(S, P), (F, P), (C, P), (K, P)}
LEGAL = FIRST_RUN | RUN_AGAIN | {(phase, phase) for phase in Phase}


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in Phase for new in Phase], ids=lambda phase: str(phase))
def test_one_write_may_lead_only_where_the_design_says(old: Phase, new: Phase) -> None:
    if (old, new) in LEGAL:
        check_move(old, new)
    else:
        with pytest.raises(IllegalMove, match=f"from {old} to {new}"):
            check_move(old, new)


def test_table_knows_every_phase_and_final_ones_are_left_for_a_new_run_only() -> None:
    assert set(SUCCESSORS) == set(Phase)
    assert {S, F, C, K} == TERMINAL
    assert all(SUCCESSORS[phase] == {phase, P} for phase in TERMINAL)
    assert not TERMINAL & ASSIGNED_PHASES


def test_every_phase_can_reach_an_end() -> None:
    reached = {phase: set(successors) for phase, successors in SUCCESSORS.items()}
    for _ in Phase:
        reached = {phase: known.union(*(SUCCESSORS[each] for each in known)) for phase, known in reached.items()}
    assert all(known & TERMINAL for known in reached.values())
