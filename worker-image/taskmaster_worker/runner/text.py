"""Turning what a task printed into text that is safe to show.

Output is bytes of any kind; what goes to a status field or a log line is valid Unicode without anything that a terminal
or a reader could take for more than text: no escape sequences, no control characters but newline and tab, no
bidirectional overrides.
"""

from __future__ import annotations

import re

TAIL_BYTES = 4096
_RAW_BYTES = 4 * TAIL_BYTES  # colours and cursor movements are taken out later, so more is kept than is shown

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC and other strings, never beyond their line
    r"|\x1b[ -/]*[0-~]"
)
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def safe_text(data: bytes | str) -> str:
    """Return data as text: invalid bytes and control characters replaced, escape sequences removed, newlines only."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    if _UNSAFE.search(text):
        text = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        text = _UNSAFE.sub("\ufffd", text)
    return text


def last_bytes(text: str, limit: int) -> str:
    """Return the end of a text, at most `limit` bytes of UTF-8, beginning with a whole character."""
    encoded = text.encode("utf-8", "replace")
    return encoded[-limit:].decode("utf-8", "ignore") if len(encoded) > limit else text


class Tail:
    """The end of a task's output, both streams in the order in which they were read."""

    def __init__(self) -> None:
        self._raw = bytearray()

    def add(self, data: bytes) -> None:
        """Append; memory stays bounded."""
        self._raw += data[-_RAW_BYTES:]
        if len(self._raw) > 2 * _RAW_BYTES:
            del self._raw[:-_RAW_BYTES]

    def text(self) -> str:
        """Return the last `TAIL_BYTES` as safe text."""
        raw = bytes(self._raw[-_RAW_BYTES:])
        while raw and raw[0] & 0xC0 == 0x80 and len(self._raw) > len(raw):  # the rest of a character cut in two
            raw = raw[1:]
        return last_bytes(safe_text(raw), TAIL_BYTES)
