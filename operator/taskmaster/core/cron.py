"""Cron expressions: from text to the instants at which they occur.

cronsim knows the expressions, by the rules of Debian's cron, and walks over wall-clock times; what a zone does to these
is decided here, by Debian's rules as well:

- An expression whose minute or hour begins with `*` follows the wall clock: it occurs whenever the clock shows a time
  that matches, so twice in a repeated hour, and not at all in a skipped one.
- Any other names fixed times: in a repeated hour it occurs the first time only, and what a skipped hour would have
  had occurs at the moment the clock was put forward, once.

(cronsim can do that itself, but takes hours to have 60 minutes of wall clock: in Australia/Lord_Howe, which moves by 30
minutes, it loses occurrences.) Expressions have five fields. With six, some programs put the seconds first and others
the year last, so we would have to guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskmaster.core import zone as zones

MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

MAX_CHARACTERS: Final = 256

FIELDS: Final = (
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day-of-month", "1-31, L (the last day) or LW (the last weekday)"),
    ("month", "1-12 or JAN-DEC"),
    ("day-of-week", "0-7 or SUN-SAT (0 and 7 are Sunday), 5L (the last Friday) or MON#2 (the second Monday)"),
)

_ANYWHERE: Final = datetime(2000, 1, 1)  # noqa: DTZ001 # local times are naive here
"""From here, the 50 years that cronsim searches hold every combination of weekday and leap year."""


class CronError(ValueError):
    """An expression that we do not know, or that never occurs; the text says where, and what to write instead."""

    def __init__(self, message: str, *, field: str = "", column: int = 1) -> None:
        super().__init__(f"column {column}, {field}: {message}" if field else f"column {column}: {message}")
        self.field = field
        """The name of the field, such as day-of-month; empty if it is about the whole expression."""
        self.column = column
        """Where the part in question begins, counted from 1."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A valid expression and the zone whose clock it is about."""

    expression: str
    """Five fields."""
    zone: ZoneInfo

    def after(self, instant: int) -> Iterator[int]:
        """Yield the occurrences after an instant, each later than the one before."""
        walk = self._fixed_after(instant) if self._fixed else self._shown_after(instant)
        return (occurrence for occurrence, _ in groupby(walk))

    def before(self, instant: int) -> Iterator[int]:
        """Yield the occurrences before an instant, each earlier than the one before."""
        walk = self._fixed_before(instant) if self._fixed else self._shown_before(instant)
        return (occurrence for occurrence, _ in groupby(walk))

    @property
    def _fixed(self) -> bool:
        minute, hour, *_ = self.expression.split()
        return not minute.startswith("*") and not hour.startswith("*")

    def _fixed_after(self, instant: int) -> Iterator[int]:
        start = zones.local(instant, zones.offset(self.zone, instant))
        occurrences = (zones.first_showing(self.zone, shown) for shown in _walk(self.expression, start))
        # Times of a repeated hour are behind us if it is being repeated now.
        return (occurrence for occurrence in occurrences if occurrence > instant)

    def _fixed_before(self, instant: int) -> Iterator[int]:
        ahead = zones.offset(self.zone, instant) + zones.fold_seconds(self.zone, instant)
        occurrences = (
            zones.first_showing(self.zone, shown)
            for shown in _walk(self.expression, zones.local(instant, ahead), reverse=True)
        )
        return (occurrence for occurrence in occurrences if occurrence < instant)

    def _shown_after(self, instant: int) -> Iterator[int]:
        """Walk from one change of the offset to the next: in between, local time is just another name for time."""
        start, seen = instant, instant
        while True:
            ahead = zones.offset(self.zone, seen)
            for shown in _walk(self.expression, zones.local(start, ahead)):
                occurrence = zones.absolute(shown, ahead)
                change = zones.next_change(self.zone, seen, occurrence)
                if change is not None:
                    break
                seen = occurrence
                yield occurrence
            else:
                return
            start, seen = change - 1, change

    def _shown_before(self, instant: int) -> Iterator[int]:
        start, seen = instant, instant - 1
        while True:
            ahead = zones.offset(self.zone, seen)
            for shown in _walk(self.expression, zones.local(start, ahead), reverse=True):
                occurrence = zones.absolute(shown, ahead)
                change = zones.last_change(self.zone, occurrence, seen)
                if change is not None:
                    break
                seen = occurrence
                yield occurrence
            else:
                return
            start, seen = change, change - 1


@lru_cache(maxsize=1_024)
def parse(expression: str, zone: ZoneInfo) -> Cron:
    """Return the schedule that an expression or a macro stands for.

    Raises:
        CronError: it is not known, or never occurs.
    """
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in MACROS:
            hint = "for intervals set everySeconds" if text.lower().startswith("@every") else _or(MACROS)
            raise CronError(f"{text[:64]!r} is not known; {hint}", column=expression.index("@") + 1)
        return Cron(MACROS[text.lower()], zone)
    if len(expression) > MAX_CHARACTERS:
        raise CronError(f"longer than {MAX_CHARACTERS} characters; use several entries of schedules")
    if "TZ=" in text.upper():
        raise CronError("a time zone is not part of an expression; set timeZone", column=text.upper().index("TZ=") + 1)
    words = [(match.group(), match.start() + 1) for match in re.finditer(r"\S+", expression)]
    if len(words) != len(FIELDS):
        raise CronError(
            "an expression has the five fields minute, hour, day-of-month, month and day-of-week, not "
            f"{len(words)}"
            + ("; for what happens more than once in a minute set everySeconds" if len(words) == 6 else "")
        )
    for index, (word, column) in enumerate(words):
        _check_field(index, word, column)
    whole = " ".join(word for word, _ in words)
    try:
        never = next(_walk(whole, _ANYWHERE), None) is None
    except CronSimError:  # each field by itself is good
        never = True
    if never:
        raise CronError("no month that it names has such a day", field="day-of-month", column=words[2][1])
    return Cron(whole, zone)


def _check_field(index: int, word: str, column: int) -> None:
    if _known(index, word):
        return
    place = column
    for item in word.split(","):
        if not _known(index, item):
            _refuse(index, item, place)
        place += len(item) + 1
    _refuse(index, word, column)


def _known(index: int, word: str) -> bool:
    try:
        CronSim(" ".join(word if place == index else "*" for place in range(len(FIELDS))), _ANYWHERE)
    except (CronSimError, ValueError, AssertionError):
        return False
    return bool(word)


def _refuse(index: int, item: str, column: int) -> NoReturn:
    name, allowed = FIELDS[index]
    if not item:
        message = "something is missing beside the comma"
    elif "?" in item:
        message = f"{item!r} is not known; write * for any"
    elif "W" in item.upper() and index == 2:
        message = f"{item!r} is not known; of the forms with W there is only LW, the last weekday of the month"
    elif "H" in item.upper().split("/")[0].split("(")[0] and index < 2:
        message = f"{item!r} is not known; to spread schedules set jitterSeconds"
    elif (found := re.fullmatch(r"([^-/]+)-([^-/]+)(/\d+)?", item)) and all(
        _known(index, each) for each in found.groups()[:2]
    ):
        message = f"the range {item!r} runs backwards; write it as two, separated by a comma"
    else:
        message = f"{item!r} is not one of {allowed}"
    raise CronError(message, field=name, column=column)


def _or(words: dict[str, str]) -> str:
    *others, last = words
    return f"use {', '.join(others)} or {last}"


def _walk(expression: str, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Yield the wall-clock times that match, from one excluded; nothing more once there is none within 50 years."""
    try:
        yield from CronSim(expression, start, reverse=reverse)
    except OverflowError:  # the end of the calendar
        return
