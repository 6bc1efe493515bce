"""Frames: any cut of the stream gives the same messages, and nothing malformed gets through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmaster_worker.runner.frames import MAX_FRAME_BYTES, Decoder, FrameError, encode
from taskmaster_worker.runner.parsing import MessageError, parse_start

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
MESSAGES = st.lists(st.dictionaries(st.text(), VALUES), max_size=4)


@settings(max_examples=40)
@given(messages=MESSAGES, cut=st.integers(min_value=1, max_value=50))
def test_any_cut_of_the_stream_gives_the_same_messages(messages: list[dict[str, Any]], cut: int) -> None:
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    decoded = [message for start in range(0, len(stream), cut) for message in decoder.feed(stream[start : start + cut])]
    assert decoded == messages
    assert decoder.pending == 0


def test_incomplete_frame_is_pending() -> None:
    decoder = Decoder()
    assert decoder.feed(encode({"type": "hello"})[:-1]) == []
    assert decoder.pending > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), "longer than"),
        (b"\0\0\0\x02[]", "a JSON list"),
        (b"\0\0\0\x01{", "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (b"\0\0\0\x02\xff\xff", "not JSON in UTF-8"),
        ((100_000).to_bytes(4, "big") + b"[" * 100_000, "not JSON"),
    ],
    ids=["long", "list", "cut", "empty", "bytes", "deep"],
)
def test_malformed_frame_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        Decoder().feed(data)


@pytest.mark.parametrize(
    "value", [float("nan"), {1, 2}, b"bytes", "x" * MAX_FRAME_BYTES], ids=["NaN", "set", "bytes", "long"]
)
def test_what_is_no_frame_is_not_sent(value: Any) -> None:
    with pytest.raises(FrameError):
        encode({"value": value})


START: dict[str, Any] = {
    "type": "start",
    "id": "u/1",
    "task": {"name": "n", "namespace": "s", "uid": "u", "attempt": 1, "later": "ignored"},
    "run": {"command": ["true"]},
}


def test_start_without_env_and_directory_gets_empty_ones() -> None:
    start = parse_start(START)
    assert (start["env"], start["workingDir"]) == ({}, "")
    assert "later" not in start["task"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": 1},
        {"task": {"name": "n"}},
        {"run": {}},
        {"run": {"command": ["a"], "script": {}}},
        {"run": {"http": {}}},
        {"env": {"A": 1}},
    ],
    ids=str,
)
def test_start_of_the_wrong_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        parse_start({**START, **change})
