"""What the bytes of an answer mean. Nothing in here may fail in another way than by an `ApiError`.

Between us and the server may stand proxies with answers of their own, so nothing is taken for granted but the status.
"""

import orjson

from taskmaster.kube.api import WatchEvent
from taskmaster.kube.errors import ApiError, Unanswered, error_for, error_from_status
from taskmaster.kube.resource import Object


def stored_object(body: bytes) -> Object:
    """Return the object of a good answer.

    Raises:
        Unanswered: there is none, so that what became of the request is unknown.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unanswered(f"the answer is not JSON: {error}", reason="Malformed") from error
    if not isinstance(parsed, dict):
        raise Unanswered("the answer is not an object", reason="Malformed")
    return parsed


def refusal(status: int, phrase: str, retry_after: str, body: bytes) -> ApiError:
    """Return the error for a status of 400 and above: by the server's `Status`, or by what a proxy wrote."""
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict):
        return error_from_status(parsed, status=status, retry_after=seconds)
    return error_for(status, body[:256].decode("utf-8", "replace"), reason=phrase, retry_after=seconds)


def watch_event(line: bytes) -> WatchEvent:
    """Return the event of one line of a watch.

    Raises:
        ApiError: it is an ERROR event, or none at all.
    """
    try:
        event = orjson.loads(line)
        kind, item = event["type"], event["object"]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise Unanswered(f"the watch carried something that is not an event: {error}", reason="Malformed") from error
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise Unanswered("the watch carried something that is not an event", reason="Malformed")
    if kind == "ERROR":
        raise error_from_status(item)
    return WatchEvent(kind, item)


def unanswered(error: Exception) -> Unanswered:
    """Return the error for a connection that failed or timed out."""
    return Unanswered(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
