"""Frames on a stream socket: four bytes of big-endian length, then that many bytes of one JSON object in UTF-8.

Pure: bytes in, objects out. Used on the agent's socket by both sides and between the runner and its supervisors.
A peer that breaks the format cannot be resynchronised, so `FrameError` always means: close the connection.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_FRAME_BYTES = 4 * 1024 * 1024
_HEADER_BYTES = 4
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class FrameError(Exception):
    """What arrived (or should be sent) is not a frame; the message says why."""


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the frame of a message.

    Raises:
        FrameError: the message is not JSON (NaN included) or longer than `MAX_FRAME_BYTES`.
    """
    try:
        body = _ENCODER.encode(message).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"message is not JSON: {error}") from error
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


class Decoder:
    """Incremental decoder: feed it what arrives, take out the messages that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame; not zero at the end of a stream means that it was cut."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Add bytes and return the messages completed by them, in order.

        Raises:
            FrameError: too long, not UTF-8, not JSON, or not an object. The decoder is of no use afterwards.
        """
        self._buffer += data
        messages: list[dict[str, Any]] = []
        start = 0
        while len(self._buffer) - start >= _HEADER_BYTES:
            body = start + _HEADER_BYTES
            length = int.from_bytes(self._buffer[start:body], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"frame of {length} bytes is longer than {MAX_FRAME_BYTES}")
            if len(self._buffer) < body + length:
                break
            messages.append(_parse(bytes(self._buffer[body : body + length])))
            start = body + length
        del self._buffer[:start]
        return messages


def _parse(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"frame is not JSON in UTF-8: {error}") from error
    if not isinstance(message, dict):
        raise FrameError(f"frame is a JSON {type(message).__name__}, not an object")
    return message
