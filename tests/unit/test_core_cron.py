"""Expressions: what they mean, in which zones, through both clock changes, and what is refused with which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmaster.core import zone as zones
from taskmaster.core.cron import MACROS, Cron, CronError, parse


def at(text: str, zone: str = "UTC", *, fold: int = 0) -> int:
    """The instant at which a zone's clock shows a time; `fold` 1 for the second time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp())


def shown(cron: Cron, since: str, number: int) -> list[str]:
    """The first occurrences from a local time on, as the zone's clock shows them, with the offset from UTC."""
    name = str(cron.zone)
    return [
        datetime.fromtimestamp(instant, cron.zone).strftime("%m-%d %H:%M%z")
        for instant in islice(cron.after(at(since, name) - 1), number)
    ]


BERLIN, NEW_YORK, LORD_HOWE, KOLKATA = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"

CLOCK_CHANGES = [
    # Berlin: 2026-03-29 02:00 -> 03:00, 2026-10-25 03:00 -> 02:00.
    (BERLIN, "30 2 * * *", "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
    (BERLIN, "0,30 2 * * *", "2026-03-29T00:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),
    (BERLIN, "0 2,3 * * *", "2026-03-29T00:00", ["03-29 03:00+0200", "03-30 02:00+0200"]),
    (BERLIN, "0 * * * *", "2026-03-29T01:00", ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"]),
    (BERLIN, "*/30 2 * * *", "2026-03-29T00:00", ["03-30 02:00+0200", "03-30 02:30+0200"]),
    (BERLIN, "30 2 * * *", "2026-10-25T00:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
    (BERLIN, "0 * * * *", "2026-10-25T01:00", ["10-25 01:00+0200", "10-25 02:00+0200", "10-25 02:00+0100"]),
    (BERLIN, "*/30 2 * * *", "2026-10-25T00:00",
     ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-26 02:00+0100"]),
    (BERLIN, "0 */2 * * *", "2026-10-25T00:00",
     ["10-25 00:00+0200", "10-25 02:00+0200", "10-25 02:00+0100", "10-25 04:00+0100"]),
    (BERLIN, "@daily", "2026-03-29T00:00", ["03-29 00:00+0100", "03-30 00:00+0200"]),
    # New York: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00.
    (NEW_YORK, "30 2 * * *", "2026-03-07T12:00", ["03-08 03:00-0400", "03-09 02:30-0400"]),
    (NEW_YORK, "30 1 * * *", "2026-11-01T00:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
    (NEW_YORK, "30 * * * *", "2026-11-01T00:30", ["11-01 00:30-0400", "11-01 01:30-0400", "11-01 01:30-0500"]),
    (NEW_YORK, "0 9 * * SUN", "2026-11-01T00:00", ["11-01 09:00-0500", "11-08 09:00-0500"]),
    # Lord Howe: 2026-04-05 02:00 -> 01:30, 2026-10-04 02:00 -> 02:30.
    (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00", ["10-04 02:30+1100", "10-05 02:15+1100"]),
    (LORD_HOWE, "45 2 * * *", "2026-10-03T12:00", ["10-04 02:45+1100", "10-05 02:45+1100"]),
    (LORD_HOWE, "45 1 * * *", "2026-04-05T00:00", ["04-05 01:45+1100", "04-06 01:45+1030"]),
    (LORD_HOWE, "*/15 1 * * *", "2026-04-05T00:00",
     ["04-05 01:00+1100", "04-05 01:15+1100", "04-05 01:30+1100", "04-05 01:45+1100",
      "04-05 01:30+1030", "04-05 01:45+1030", "04-06 01:00+1030"]),
    # cronsim by itself loses these two: after the half hour that comes twice it looks at 02:30 next.
    (LORD_HOWE, "*/15 2 * * *", "2026-04-05T00:00",
     ["04-05 02:00+1030", "04-05 02:15+1030", "04-05 02:30+1030", "04-05 02:45+1030", "04-06 02:00+1030"]),
    (LORD_HOWE, "0 * * * *", "2026-04-05T01:00", ["04-05 01:00+1100", "04-05 02:00+1030", "04-05 03:00+1030"]),
    (LORD_HOWE, "0 * * * *", "2026-10-04T01:00", ["10-04 01:00+1030", "10-04 03:00+1100"]),
    # Kolkata has no changes, and half an hour.
    (KOLKATA, "30 2 * * *", "2026-03-29T00:00", ["03-29 02:30+0530", "03-30 02:30+0530"]),
    (KOLKATA, "0 */6 * * *", "2026-10-25T00:00", ["10-25 00:00+0530", "10-25 06:00+0530", "10-25 12:00+0530"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "expression", "since", "wanted"),
    CLOCK_CHANGES,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in CLOCK_CHANGES],
)
def test_clock_changes_follow_the_rules_of_debians_cron(
    zone: str, expression: str, since: str, wanted: list[str]
) -> None:
    assert shown(parse(expression, zones.load(zone)), since, len(wanted)) == wanted


MEANINGS = [
    ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29", "2032-02-29"]),
    ("0 0 29 2 *", "2096-03-01T00:00", ["2104-02-29"]),  # 2100 is no leap year
    ("0 0 31 * *", "2026-02-01T00:00", ["2026-03-31", "2026-05-31", "2026-07-31", "2026-08-31"]),
    ("0 0 30 1,2 *", "2026-01-31T00:00", ["2027-01-30", "2028-01-30"]),
    ("0 0 L * *", "2028-01-15T00:00", ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]),
    ("0 0 LW * *", "2026-01-15T00:00", ["2026-01-30", "2026-02-27", "2026-03-31"]),
    ("0 0 L 2 *", "2026-01-01T00:00", ["2026-02-28", "2027-02-28", "2028-02-29"]),
    ("0 0 * * 5L", "2026-01-15T00:00", ["2026-01-30", "2026-02-27", "2026-03-27"]),
    ("0 0 * * MON#2", "2026-01-15T00:00", ["2026-02-09", "2026-03-09", "2026-04-13"]),
    ("0 0 * * 1#5", "2026-01-01T00:00", ["2026-03-30", "2026-06-29"]),
    ("0 0 * 2 MON#5", "2026-01-01T00:00", ["2044-02-29"]),
    ("0 0 * * 0", "2026-01-01T00:00", ["2026-01-04"]),
    ("0 0 * * 7", "2026-01-01T00:00", ["2026-01-04"]),
    ("0 0 * JAN-MAR mon", "2026-03-25T00:00", ["2026-03-30", "2027-01-04"]),
    ("0 0 13 * FRI", "2026-02-10T00:00", ["2026-02-13", "2026-02-20"]),  # either
    ("0 0 */13 * 5", "2026-01-01T00:00", ["2026-02-27", "2026-03-27"]),  # a star in front: both
    ("0 0 1-7/3 * *", "2026-01-01T00:00", ["2026-01-01", "2026-01-04", "2026-01-07", "2026-02-01"]),
    ("0 0 20/5 * *", "2026-01-01T00:00", ["2026-01-20", "2026-01-25", "2026-01-30", "2026-02-20"]),
    ("@weekly", "2026-01-01T00:00", ["2026-01-04", "2026-01-11"]),
    ("@monthly", "2026-01-02T00:00", ["2026-02-01", "2026-03-01"]),
    ("@yearly", "2026-01-02T00:00", ["2027-01-01", "2028-01-01"]),
    ("@ANNUALLY", "2026-01-02T00:00", ["2027-01-01"]),
    ("@midnight", "2026-01-02T00:00", ["2026-01-02", "2026-01-03"]),
    ("  0   0\t1 1 * ", "2026-01-02T00:00", ["2027-01-01"]),
]


@pytest.mark.parametrize(
    ("expression", "since", "wanted"), MEANINGS, ids=[f"{row[0]}-{row[1][:4]}" for row in MEANINGS]
)
def test_what_an_expression_means(expression: str, since: str, wanted: list[str]) -> None:
    cron = parse(expression, ZoneInfo("UTC"))
    found = islice(cron.after(at(since) - 1), len(wanted))
    assert [datetime.fromtimestamp(each, UTC).date().isoformat() for each in found] == wanted


REFUSED = [
    ("61 * * * *", "minute", 1, "'61' is not one of 0-59"),
    ("0 24 * * *", "hour", 3, "'24' is not one of 0-23"),
    ("0 0 1,2,32 * *", "day-of-month", 9, "'32' is not one of 1-31, L"),
    ("0 0 0 * *", "day-of-month", 5, "'0' is not one of"),
    ("0 0 * JANUARY *", "month", 7, "'JANUARY' is not one of 1-12 or JAN-DEC"),
    ("0 0 * * 8", "day-of-week", 9, "'8' is not one of 0-7 or SUN-SAT"),
    ("0 0 * * MON#6", "day-of-week", 9, "MON#2 (the second Monday)"),
    ("0 0 * * MONL", "day-of-week", 9, "5L (the last Friday)"),
    ("0 9 * * FRI-SUN", "day-of-week", 9, "runs backwards; write it as two"),
    ("0  0 ? * *", "day-of-month", 6, "write * for any"),
    ("0 0 15W * *", "day-of-month", 5, "only LW"),
    ("H H * * *", "minute", 1, "jitterSeconds"),
    ("1,,2 * * * *", "minute", 3, "missing beside the comma"),
    ("*/0 * * * *", "minute", 1, "'*/0'"),
    ("5/2/2 * * * *", "minute", 1, "'5/2/2'"),
    ("1-2-3 * * * *", "minute", 1, "'1-2-3'"),
    ("-1 * * * *", "minute", 1, "'-1'"),
    ("\u0663 * * * *", "minute", 1, "is not one of 0-59"),
    ("0 0 30 2 *", "day-of-month", 5, "no month that it names has such a day"),
    ("0 0 31 4,6,9,11 *", "day-of-month", 5, "no month that it names has such a day"),
    ("* * */20 * 1L", "day-of-month", 5, "no month that it names has such a day"),
    ("", "", 1, "five fields"),
    ("* * * *", "", 1, "five fields minute, hour, day-of-month, month and day-of-week, not 4"),
    ("0 0 0 1 1 *", "", 1, "set everySeconds"),
    ("@every 5m", "", 1, "set everySeconds"),
    (" @reboot", "", 2, "use @hourly, @daily"),
    ("TZ=UTC 0 0 * * *", "", 1, "set timeZone"),
    ("CRON_TZ=UTC 0 0 * * *", "", 6, "set timeZone"),
    ("1" * 300, "", 1, "longer than 256 characters"),
]


@pytest.mark.parametrize(
    ("expression", "field", "column", "words"), REFUSED, ids=[repr(row[0])[:30] for row in REFUSED]
)
def test_what_is_not_known_is_refused_with_its_place_and_what_to_do(
    expression: str, field: str, column: int, words: str
) -> None:
    with pytest.raises(CronError) as refusal:
        parse(expression, ZoneInfo("UTC"))
    assert (refusal.value.field, refusal.value.column) == (field, column)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith(f"column {column}")


@given(
    st.text(max_size=40)
    | st.lists(st.text("0123456789*/,-#LWAMONJAN?", max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        found = next(parse(text, ZoneInfo("UTC")).after(0))
    except CronError as refusal:
        found = refusal.column
    assert found >= 1


def test_a_macro_is_refused_when_it_is_not_the_whole_expression() -> None:
    assert all(parse(macro, ZoneInfo("UTC")) for macro in MACROS)
    with pytest.raises(CronError, match="not known"):
        parse("@daily 5", ZoneInfo("UTC"))


EXPRESSIONS = ("* * * * *", "*/15 2 * * *", "0,30 2 * * *", "15 1-3 * * *", "*/7 */2 * * *", "5 4 * * 1", "45 1 L * *")
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, KOLKATA, "Africa/Casablanca", "Pacific/Apia", "UTC")
CHANGES = [  # days in which offsets change, in one zone or the other; in 2011 Apia went over the date line
    at(day)
    for day in ("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2011-12-30")
]


@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(-172_800, 172_800))
def test_backwards_and_forwards_are_the_same_from_anywhere(expression: str, zone: str, day: int, shift: int) -> None:
    cron = parse(expression, zones.load(zone))
    start = day + shift
    ahead = list(islice(cron.after(start), 12))
    assert ahead == sorted(set(ahead))
    assert ahead[0] > start
    assert list(islice(cron.before(ahead[-1] + 1), 12)) == ahead[::-1]
    assert next(cron.before(ahead[0])) <= start


@settings(max_examples=40)
@given(st.sampled_from(EXPRESSIONS[:2]), st.sampled_from(ZONES), st.sampled_from(CHANGES))
def test_a_starred_expression_occurs_whenever_the_clock_shows_it(expression: str, zone: str, day: int) -> None:
    cron, clock = parse(expression, zones.load(zone)), ZoneInfo(zone)
    begin, end = day - 86_400, day + 86_400

    def matches(instant: int) -> bool:
        time = datetime.fromtimestamp(instant, clock)
        return expression.startswith("* *") or (time.hour == 2 and time.minute % 15 == 0)

    wanted = [instant for instant in range(begin, end, 60) if matches(instant)]
    found: list[int] = []
    for instant in cron.after(begin - 1):
        if instant >= end:
            break
        found.append(instant)
    assert found == wanted


@pytest.mark.parametrize("name", ["localtime", "Local", "", "Europe", "../etc/passwd", "Europe/Berln", "x" * 64])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(zones.UnknownZone, match="IANA"):
        zones.load(name)


def test_a_misspelt_zone_is_told_its_neighbour() -> None:
    with pytest.raises(zones.UnknownZone, match="did you mean Europe/Berlin"):
        zones.load("Europe/Berln")


def test_changes_of_a_zone_are_found_to_the_second() -> None:
    zone = zones.load(BERLIN)
    spring = at("2026-03-29T01:00")
    assert zones.next_change(zone, spring - 1, spring) == spring
    assert zones.next_change(zone, spring, spring + 86_400) is None
    assert zones.last_change(zone, spring - 1, spring + 86_400) == spring
    assert zones.offset(zone, spring) - zones.offset(zone, spring - 1) == 3_600
    assert zones.first_showing(zone, datetime(2026, 3, 29, 2, 30)) == spring  # noqa: DTZ001
    assert timedelta(seconds=zones.fold_seconds(zone, at("2026-10-25T02:30", BERLIN, fold=1))) == timedelta(hours=1)
