import pytest

from taskmaster.core.requirements import Operator, Requirement, unmet

IN, NOT_IN, GT, LT = Operator.IN, Operator.NOT_IN, Operator.GT, Operator.LT
EXISTS, DOES_NOT_EXIST = Operator.EXISTS, Operator.DOES_NOT_EXIST


@pytest.mark.parametrize(
    ("operator", "values", "value", "holds"),
    [
        (IN, ("a",), "a", True),
        (IN, ("a", "b"), "b", True),
        (IN, ("a",), "b", False),
        (IN, ("a",), None, False),
        (IN, ("",), "", True),
        (NOT_IN, ("a",), "b", True),
        (NOT_IN, ("a", "b"), "b", False),
        (NOT_IN, ("a",), None, True),
        (EXISTS, (), "", True),
        (EXISTS, (), None, False),
        (DOES_NOT_EXIST, (), None, True),
        (DOES_NOT_EXIST, (), "", False),
        (GT, ("8",), "9", True),
        (GT, ("8",), "8", False),
        (GT, ("8",), "10", True),
        (GT, ("-3",), "-2", True),
        (LT, ("8",), "7", True),
        (LT, ("8",), "8", False),
        (LT, ("10",), "9", True),
        (GT, ("8",), None, False),
        (LT, ("8",), None, False),
        (GT, ("8",), "nine", False),
        (LT, ("8",), "nine", False),
        (GT, (), "9", False),
        (GT, ("x",), "9", False),
        (GT, ("8",), "9.5", False),
        (GT, ("8",), "1_000", False),
        (GT, ("8",), " 9", False),
        (GT, ("8",), "٩", False),
        (GT, ("8",), "+9", True),
        (GT, ("8",), "+-9", False),
        (GT, ("8",), "-", False),
        (GT, ("8",), "9" * 30, False),
    ],
)
def test_a_label_is_compared_as_kubernetes_does(
    operator: Operator, values: tuple[str, ...], value: str | None, holds: bool
) -> None:
    labels = {"other": "1"} | ({} if value is None else {"label": value})
    assert Requirement("label", operator, values).holds(labels) is holds


def test_all_have_to_hold_and_the_first_that_does_not_is_named() -> None:
    gpu, zone = Requirement("gpu", IN, ("true",)), Requirement("zone", EXISTS)
    assert unmet((), {}) is None
    assert unmet((gpu, zone), {"gpu": "true", "zone": "a"}) is None
    assert unmet((gpu, zone), {"gpu": "true"}) == zone
    assert unmet((gpu, zone), {}) == gpu


@pytest.mark.parametrize(
    ("requirement", "text"),
    [
        (Requirement("gpu", IN, ("true",)), "gpu=true"),
        (Requirement("gpu", IN, ("a", "b")), "gpu in (a, b)"),
        (Requirement("gpu", NOT_IN, ("a",)), "gpu!=a"),
        (Requirement("gpu", NOT_IN, ("a", "b")), "gpu not in (a, b)"),
        (Requirement("gpu", EXISTS), "gpu"),
        (Requirement("gpu", DOES_NOT_EXIST), "!gpu"),
        (Requirement("cpus", GT, ("8",)), "cpus>8"),
        (Requirement("cpus", LT, ("8",)), "cpus<8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_requirement_reads_as_in_a_selector_of_kubectl(requirement: Requirement, text: str) -> None:
    assert str(requirement) == text
