"""What a Task demands of the labels of its worker (`spec.requires`).

The semantics are those of a node selector term of Kubernetes: all requirements have to hold, `NotIn` and `DoesNotExist`
hold where the label is missing, `Gt` and `Lt` compare whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class Operator(StrEnum):
    """How a label is compared."""

    IN = "In"
    """The label has one of the values."""
    NOT_IN = "NotIn"
    """The label has none of the values, or is missing."""
    EXISTS = "Exists"
    """The label is there."""
    DOES_NOT_EXIST = "DoesNotExist"
    """The label is missing."""
    GT = "Gt"
    """The label is a whole number greater than the value."""
    LT = "Lt"
    """The label is a whole number less than the value."""


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One demand on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether a worker with these labels will do."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GT | Operator.LT:
                have, bound = _whole(value), _whole(self.values[0] if self.values else None)
                if have is None or bound is None:
                    return False
                return have > bound if self.operator is Operator.GT else have < bound
        assert_never(self.operator)

    def __str__(self) -> str:
        values = ", ".join(self.values)
        match self.operator:
            case Operator.IN:
                return f"{self.key}={values}" if len(self.values) == 1 else f"{self.key} in ({values})"
            case Operator.NOT_IN:
                return f"{self.key}!={values}" if len(self.values) == 1 else f"{self.key} not in ({values})"
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.GT:
                return f"{self.key}>{values}"
            case Operator.LT:
                return f"{self.key}<{values}"
        assert_never(self.operator)


Requirements = tuple[Requirement, ...]


def unmet(requirements: Requirements, labels: Mapping[str, str]) -> Requirement | None:
    """Return the first requirement that labels do not meet; None if they meet all."""
    return next((requirement for requirement in requirements if not requirement.holds(labels)), None)


def _whole(text: str | None) -> int | None:
    # As strconv.ParseInt does: int() alone would take "1_000", " 7 " and digits of other scripts.
    text = text or ""
    digits = text[1:] if text.startswith(("-", "+")) else text
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None
