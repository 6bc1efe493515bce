"""JSON values of users: how large and how deep they are, and how they are named in a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

VALUE_CHARACTERS: Final = 60
MESSAGE_CHARACTERS: Final = 900
"""So that a message fits into a condition, with some words before it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot be used, for people."""

    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", self.message[:MESSAGE_CHARACTERS])


def check_size(what: str, value: Any, limit: int) -> Problem | None:
    """Return a problem if a value has more bytes as JSON, or cannot be written as JSON at all."""
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError as error:
        return Problem(f"{what}: it cannot be written as JSON: {error}")
    return Problem(f"{what}: {size} bytes of JSON are more than {limit}") if size > limit else None


def nesting(value: Any) -> int:
    """Return how many objects and lists are in one another at most."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, Mapping | list)]:
        depth += 1
        level = [child for each in level for child in (each.values() if isinstance(each, Mapping) else each)]
    return depth


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "the value"
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}..."


def path_of(root: str, place: Iterable[str | int]) -> str:
    """Return a place within a value as people write it: `args.sizes[2]`."""
    return root + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
