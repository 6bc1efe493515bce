"""Time zones as schedules need them: when the offset from UTC changes, and what a wall clock shows.

Zones come from the IANA database, the system's or that of the package tzdata. Instants are whole seconds since the
epoch; local times are naive. A gap is what a wall clock skips in spring, a fold what it shows twice in autumn.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo

DAY_SECONDS: Final = 86_400


class UnknownZone(ValueError):
    """The database has no such zone; the text says what to write."""


_NOT_ZONES: Final = frozenset({"localtime", "posixrules", "Factory"})
"""Files that some systems have among the zones: whatever this machine is set to."""


@cache
def _known() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NOT_ZONES


def load(name: str) -> ZoneInfo:
    """Return a zone of the IANA database.

    Raises:
        UnknownZone: there is none of that name.
    """
    if name not in _known():
        near = get_close_matches(name, _known(), n=1)
        hint = f"did you mean {near[0]}?" if near else "use a name such as Europe/Berlin or UTC"
        raise UnknownZone(f"there is no time zone {name!r} in the IANA database; {hint}")
    return ZoneInfo(name)


def offset(zone: ZoneInfo, instant: int) -> int:
    """Return how many seconds a zone is ahead of UTC."""
    return _ahead(datetime.fromtimestamp(instant, zone))


def local(instant: int, ahead: int) -> datetime:
    """Return what a wall clock shows that is so many seconds ahead of UTC."""
    return datetime.fromtimestamp(instant + ahead, UTC).replace(tzinfo=None)


def absolute(shown: datetime, ahead: int) -> int:
    """Return the instant at which a wall clock shows a time, if it is so many seconds ahead of UTC."""
    return int(shown.replace(tzinfo=UTC).timestamp()) - ahead


def first_showing(zone: ZoneInfo, shown: datetime) -> int:
    """Return the first instant at which a zone's clock shows a time, or has passed it, if it never shows it."""
    early, late = (_ahead(shown.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    instant = absolute(shown, early)
    if offset(zone, instant) == early:
        return instant
    # In a gap: read with the offset before it the time is behind the change, read with that after it, before.
    change = next_change(zone, absolute(shown, late) - 1, instant)
    return instant if change is None else change


def fold_seconds(zone: ZoneInfo, instant: int) -> int:
    """Return how much a zone's clock was set back just before, while it shows times for the second time; else 0."""
    shown = datetime.fromtimestamp(instant, zone)
    if not shown.fold:
        return 0
    return _ahead(shown.replace(fold=0)) - _ahead(shown)


def next_change(zone: ZoneInfo, after: int, until: int) -> int | None:
    """Return the first instant in (after, until] at which the offset changes."""
    for year in range(_year(after), _year(until) + 1):
        for change in _changes(zone, year):
            if after < change <= until:
                return change
    return None


def last_change(zone: ZoneInfo, since: int, before: int) -> int | None:
    """Return the last instant in (since, before] at which the offset changes."""
    for year in range(_year(before), _year(since) - 1, -1):
        for change in reversed(_changes(zone, year)):
            if since < change <= before:
                return change
    return None


def _ahead(shown: datetime) -> int:
    return int((shown.utcoffset() or timedelta()).total_seconds())


def _year(instant: int) -> int:
    return datetime.fromtimestamp(instant, UTC).year


@lru_cache(maxsize=1_024)
def _changes(zone: ZoneInfo, year: int) -> tuple[int, ...]:
    """Find the changes of a year by looking at each day: no zone changes its offset twice in one."""
    begin = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(year, 12, 31, tzinfo=UTC).timestamp()) + DAY_SECONDS
    found = []
    known = offset(zone, begin - 1)
    for low in range(begin - 1, end - 1, DAY_SECONDS):
        high = min(low + DAY_SECONDS, end - 1)
        reached = offset(zone, high)
        if reached != known:
            found.append(_bisect(zone, low, high, known))
            known = reached
    return tuple(found)


def _bisect(zone: ZoneInfo, low: int, high: int, known: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset(zone, middle) == known else (low, middle)
    return high
