import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster.api.times import from_wire, to_wire


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_800_000_000.5, "2027-01-15T08:00:00.500000Z"),
        (1_800_000_000.000_001, "2027-01-15T08:00:00.000001Z"),
        (1_800_000_000, "2027-01-15T08:00:00.000000Z"),
    ],
)
def test_times_are_written_with_six_digits(instant: float, text: str) -> None:
    assert to_wire(instant) == text
    assert from_wire(text) == pytest.approx(instant, abs=1e-6)


@given(st.integers(0, 4_000_000_000_000_000))
def test_text_survives_the_round_trip_to_the_microsecond(microseconds: int) -> None:
    text = to_wire(microseconds / 1_000_000)
    assert to_wire(from_wire(text)) == text


@pytest.mark.parametrize(
    "text",
    ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00", "2027-01-15T08:00:00.0Z", "2027-01-15T08:00:00.000000000Z"],
)
def test_other_forms_of_rfc_3339_are_read(text: str) -> None:
    assert from_wire(text) == 1_800_000_000


@pytest.mark.parametrize("text", ["", "soon", "1800000000", "2027-01-15", "2027-01-15T08:00:00"])
def test_what_is_no_time_in_a_known_zone_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_wire(text)
