"""Results: what passes every reader after us unchanged, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster_worker.runner.result import MAX_RESULT_BYTES, ResultError, checked, parse, read_file

INTEGERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(value=VALUES)
def test_json_values_pass_unchanged(value: Any) -> None:
    assert checked(value) == value
    assert parse(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "-Infinity",
        "1e999",
        "9223372036854775808",
        "-9223372036854775809",
        "9" * 5000,
        '"\\ud800"',
        "[" * 20000,
        '"' + "x" * MAX_RESULT_BYTES + '"',
    ],
    ids=lambda text: text[:24],
)
def test_text_that_a_later_reader_would_change_or_refuse_is_refused(text: str) -> None:
    with pytest.raises(ResultError):
        parse(text)


@pytest.mark.parametrize(
    "value", [{1}, object(), float("inf"), "\ud800", {(1, 2): 3}, b"x", 2**63], ids=lambda value: type(value).__name__
)
def test_python_value_that_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(ResultError):
        checked(value)


def test_largest_result_passes_and_one_byte_more_does_not() -> None:
    assert len(checked("x" * (MAX_RESULT_BYTES - 2))) == MAX_RESULT_BYTES - 2
    with pytest.raises(ResultError, match="larger than"):
        checked("x" * (MAX_RESULT_BYTES - 1))


def test_recursive_value_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ResultError):
        checked(value)


def test_file_is_read_only_if_it_is_a_regular_one(tmp_path: Path) -> None:
    path = tmp_path / "result"
    assert read_file(str(path)) is None
    path.write_text(' \n{"a": 1}\n')
    assert read_file(str(path)) == {"a": 1}
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        with pytest.raises(ResultError):
            read_file(str(tmp_path / name))
