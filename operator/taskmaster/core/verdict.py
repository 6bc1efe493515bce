"""What is said about a Task that names others in `spec.dependsOn`, to the coordinator and to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from taskmaster.core.phase import Phase

NAMED: Final = 5
"""Parents that a verdict names."""

NAMES_CHARACTERS: Final = 800
"""How long the names in a message may be together, after which it only says how many more there are."""


@dataclass(frozen=True, slots=True)
class Met:
    """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Some parents have not ended, or do not exist; at most `NAMED` of them are named."""

    missing: tuple[str, ...]
    unfinished: tuple[str, ...]
    phases: tuple[Phase, ...]
    """Of the unfinished ones, in the same order."""
    unmet: int
    """How many parents it waits for."""
    total: int
    """How many parents it has."""


@dataclass(frozen=True, slots=True)
class Moot:
    """A parent has ended in another way than asked for; the message says which, how, and what began it."""

    message: str


@dataclass(frozen=True, slots=True)
class Cyclic:
    """The Task depends on itself: each name needs the next one, and the last is the first again."""

    path: tuple[str, ...]


Verdict = Met | Waiting | Moot | Cyclic

MET: Final = Met()


def describe(verdict: Verdict) -> str:
    """Return what to tell people about a verdict; empty if there is nothing to tell."""
    match verdict:
        case Met():
            return ""
        case Waiting(missing, unfinished, phases, unmet, total):
            parents = [f"{name} ({phase})" for name, phase in zip(unfinished, phases, strict=True)]
            parents += [f"{name} (not created yet)" for name in missing]
            shown = parents[: _fitting(parents)]
            listed = ", ".join(shown) + (f", and {unmet - len(shown)} more" if unmet > len(shown) else "")
            return f"waits for {listed}" if total == 1 else f"waits for {unmet} of {total} dependencies: {listed}"
        case Moot(message):
            return message
        case Cyclic(path):
            number = _fitting(path[:-1])
            left = len(path) - 1 - number
            shown = [*path[:number], *([f"({left} more)"] if left else []), path[-1]]
            return f"depends on itself: {' -> '.join(shown)}; change spec.dependsOn of one of them, or delete one"
    assert_never(verdict)


def _fitting(texts: Sequence[str]) -> int:
    """Return how many texts, at least one, a message has room for."""
    room = NAMES_CHARACTERS
    for number, text in enumerate(texts):
        room -= len(text) + len(" -> ")
        if room < 0:
            return max(number, 1)
    return len(texts)
