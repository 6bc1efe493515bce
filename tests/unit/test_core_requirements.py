"""Requirements hold as the node selector terms of Kubernetes do."""

import pytest

from taskmaster.core.requirements import Operator, Requirement, unmet

LABELS = {"zone": "a", "gpu": "true", "mem": "16", "minus": "-3", "word": "many", "empty": ""}


@pytest.mark.parametrize(
    ("requirement", "written", "holds"),
    [
        (Requirement("zone", Operator.IN, ("a",)), "zone=a", True),
        (Requirement("zone", Operator.IN, ("a", "b")), "zone in (a, b)", True),
        (Requirement("zone", Operator.IN, ("b", "c")), "zone in (b, c)", False),
        (Requirement("missing", Operator.IN, ("a",)), "missing=a", False),
        (Requirement("missing", Operator.IN, ("",)), "missing=", False),
        (Requirement("empty", Operator.IN, ("",)), "empty=", True),
        (Requirement("zone", Operator.NOT_IN, ("b",)), "zone!=b", True),
        (Requirement("zone", Operator.NOT_IN, ("a", "b")), "zone not in (a, b)", False),
        (Requirement("missing", Operator.NOT_IN, ("a",)), "missing!=a", True),
        (Requirement("gpu", Operator.EXISTS), "gpu", True),
        (Requirement("empty", Operator.EXISTS), "empty", True),
        (Requirement("missing", Operator.EXISTS), "missing", False),
        (Requirement("missing", Operator.DOES_NOT_EXIST), "!missing", True),
        (Requirement("empty", Operator.DOES_NOT_EXIST), "!empty", False),
        (Requirement("mem", Operator.GT, ("8",)), "mem>8", True),
        (Requirement("mem", Operator.GT, ("16",)), "mem>16", False),
        (Requirement("mem", Operator.LT, ("16",)), "mem<16", False),
        (Requirement("mem", Operator.LT, ("100",)), "mem<100", True),
        (Requirement("minus", Operator.LT, ("-2",)), "minus<-2", True),
        (Requirement("minus", Operator.GT, ("-2",)), "minus>-2", False),
        (Requirement("missing", Operator.GT, ("0",)), "missing>0", False),
        (Requirement("missing", Operator.LT, ("0",)), "missing<0", False),
        (Requirement("word", Operator.GT, ("0",)), "word>0", False),
        (Requirement("word", Operator.LT, ("0",)), "word<0", False),
        (Requirement("mem", Operator.LT, ("many",)), "mem<many", False),
        (Requirement("mem", Operator.GT), "mem>", False),
    ],
    ids=str,
)
def test_requirement_holds_and_reads_as_people_know_it(requirement: Requirement, written: str, holds: bool) -> None:
    assert requirement.holds(LABELS) is holds
    assert str(requirement) == written


@pytest.mark.parametrize(
    "text", ["1_000", " 7", "7 ", "\u0667", "7.0", "7e0", "0x7", "", "+", "-", "--7", "+-7", "-+7", "9" * 20]
)
def test_what_is_no_whole_number_is_neither_greater_nor_less(text: str) -> None:
    for operator in (Operator.GT, Operator.LT):
        assert not Requirement("n", operator, ("5",)).holds({"n": text})
        assert not Requirement("n", operator, (text,)).holds({"n": "5"})


def test_the_first_requirement_that_is_not_met_is_named() -> None:
    gpu, zone = Requirement("gpu", Operator.IN, ("true",)), Requirement("zone", Operator.IN, ("b",))
    word = Requirement("word", Operator.DOES_NOT_EXIST)
    assert unmet((), LABELS) is None
    assert unmet((gpu,), LABELS) is None
    assert unmet((gpu, zone, word), LABELS) is zone
    assert unmet((gpu, zone), {}) is gpu
