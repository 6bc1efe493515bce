"""Safe text: whatever bytes a task prints, what is shown is harmless, valid and bounded."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmaster_worker.runner.text import TAIL_BYTES, Tail, last_bytes, safe_text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        ("grün 日本 🎉".encode(), "grün 日本 🎉"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link", "link"),
        (b"\x1b]never ended\nnext", "\nnext"),
        (b"\x1bP+q\x1b\\dcs", "dcs"),
        (b"10%\r20%\r\n", "10%\n20%\n"),
        (b"a\0b\x07c\x7fd", "a\ufffdb\ufffdc\ufffdd"),
        (b"\x1b", "\ufffd"),
        (b"\xff\xfe\xed\xa0\x80", "\ufffd" * 5),
        ("\u202eevil\u2066".encode(), "\ufffdevil\ufffd"),
        ("c1 \x9b31m".encode(), "c1 \ufffd31m"),
    ],
    ids=repr,
)
def test_text_is_made_safe(data: bytes, expected: str) -> None:
    assert safe_text(data) == expected


@given(chunks=st.lists(st.binary(max_size=9000), max_size=8))
def test_tail_of_any_bytes_is_safe_and_bounded(chunks: list[bytes]) -> None:
    tail = Tail()
    for chunk in chunks:
        tail.add(chunk)
    text = tail.text()
    assert len(text.encode("utf-8")) <= TAIL_BYTES
    assert {character for character in text if unicodedata.category(character) in ("Cc", "Cs")} <= {"\n", "\t"}


@given(text=st.text(alphabet="aé日🎉", max_size=20000), chunk=st.integers(min_value=1, max_value=5000))
def test_tail_is_the_end_of_what_was_printed_and_cut_between_characters(text: str, chunk: int) -> None:
    tail = Tail()
    data = text.encode()
    for start in range(0, len(data), chunk):
        tail.add(data[start : start + chunk])
    assert text.endswith(tail.text())
    assert tail.text() == last_bytes(text, TAIL_BYTES)
