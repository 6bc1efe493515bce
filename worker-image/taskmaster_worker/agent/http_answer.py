"""What the answer to a request of `run.http` means: how the attempt ended, with which result, and when to try again.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from taskmaster.api.patches import Ended
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.runner.result import ResultError, checked, parse
from taskmaster_worker.runner.text import safe_text

BODY_BYTES: Final = 1024 * 1024
"""How much of a body is read."""

KEPT_HEADERS: Final = ("content-type", "location", "retry-after")
"""The headers that go into the result."""

EXCERPT_CHARACTERS: Final = 200
LONGEST_RETRY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it was read. `headers` has lower-case names, `whole` is false for a cut body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


def end_of(answer: Answer, expected: Sequence[int] | None, *, started: Instant, now: Instant) -> Ended:
    """Say how the attempt ended; without `expected` every status from 200 to 299 is a success."""
    status = answer.status
    if status in expected if expected else 200 <= status <= 299:
        return Ended(
            Outcome.SUCCEEDED, EndReason.COMPLETED, "", now, started, result=_result(answer), http_status=status
        )
    excerpt = " ".join(safe_text(answer.body).split())[:EXCERPT_CHARACTERS]
    message = f"HTTP status {status}: {excerpt}" if excerpt else f"HTTP status {status}"
    retry_after = _retry_after(answer.headers.get("retry-after", ""), now)
    return Ended(
        Outcome.FAILED, EndReason.HTTP_STATUS, message, now, started, http_status=status, retry_after=retry_after
    )


def _result(answer: Answer) -> Any:
    kept = {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}
    head = {"status": answer.status, "headers": kept}
    if answer.whole:
        try:
            return checked({**head, "body": _content(answer)})
        except ResultError:
            pass  # larger than a result may be
    return checked({**head, "bodyBytes": len(answer.body)})


def _content(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return parse(answer.body, limit=BODY_BYTES)
        except ResultError:
            pass  # it only says that it is JSON
    return answer.body.decode("utf-8", "replace")


def _retry_after(text: str, now: Instant) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), at most a day; None if there is none."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_SECONDS)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_SECONDS)
