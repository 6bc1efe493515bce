"""What an answer to `run.http` means."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from tests.unit.agent_worker import EPOCH

from taskmaster.api.patches import Ended
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent.http_answer import Answer, end_of


def answered(
    status: int = 200, body: bytes = b"", *, whole: bool = True, expected: Any = None, **headers: str
) -> Ended:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return end_of(Answer(status, named, body, whole), expected, started=Instant(EPOCH), now=Instant(EPOCH + 1))


@pytest.mark.parametrize(
    ("status", "expected", "outcome"),
    [
        (200, None, Outcome.SUCCEEDED),
        (299, None, Outcome.SUCCEEDED),
        (300, None, Outcome.FAILED),
        (199, None, Outcome.FAILED),
        (404, [404, 410], Outcome.SUCCEEDED),
        (200, [404], Outcome.FAILED),
    ],
)
def test_the_status_decides(status: int, expected: Any, outcome: Outcome) -> None:
    ended = answered(status, expected=expected)
    assert (ended.outcome, ended.http_status) == (outcome, status)


@pytest.mark.parametrize(
    ("kind", "body", "parsed"),
    [
        ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("Application/JSON; charset=utf-8", b"3", 3),
        ("application/problem+json", b'"x"', "x"),
        ("application/json", b"not json", "not json"),
        ("application/json", b"", ""),
        ("application/json", b'{"n": 99999999999999999999}', '{"n": 99999999999999999999}'),
        ("application/json", b"[NaN]", "[NaN]"),
        ("text/plain", b"3", "3"),
        ("text/plain", "grün".encode(), "grün"),
        ("application/octet-stream", b"a\xff\xfeb", "a\ufffd\ufffdb"),
    ],
)
def test_a_body_is_json_if_it_says_so_and_is(kind: str, body: bytes, parsed: Any) -> None:
    result = answered(body=body, content_type=kind, x_other="1", location="/next").result
    assert result == {"status": 200, "headers": {"content-type": kind, "location": "/next"}, "body": parsed}


@pytest.mark.parametrize(
    ("body", "kind", "whole", "left_out"),
    [
        pytest.param(b"x" * 32_000, "text/plain", True, False, id="fits"),
        pytest.param(b"x" * 33_000, "text/plain", True, True, id="too large"),
        pytest.param(b"\xff" * 12_000, "text/plain", True, True, id="too large once it is text"),
        pytest.param(b"[" + b" " * 100_000 + b"1]", "application/json", True, False, id="white space is not kept"),
        pytest.param(b"1", "application/json", False, True, id="cut"),
    ],
)
def test_a_body_that_is_too_large_is_left_out_and_counted(body: bytes, kind: str, whole: bool, left_out: bool) -> None:
    result = answered(body=body, whole=whole, content_type=kind).result
    assert ("body" not in result) is left_out
    assert result.get("bodyBytes") == (len(body) if left_out else None)


def test_an_unexpected_status_is_told_with_a_safe_excerpt() -> None:
    body = b"\x1b[31mout\x1b[0m of\r\n\x07order" + b"!" * 500
    ended = answered(503, body)
    assert ended.reason is EndReason.HTTP_STATUS
    excerpt = ended.message.removeprefix("HTTP status 503: ")
    assert excerpt.startswith("out of \ufffdorder!")
    assert len(excerpt) == 200
    assert ended.result is None
    assert answered(500).message == "HTTP status 500"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9" * 400, 86_400.0),
        ("100000", 86_400.0),
        (format_datetime(datetime.fromtimestamp(EPOCH + 31, UTC), usegmt=True), 30.0),
        (format_datetime(datetime.fromtimestamp(EPOCH - 31, UTC), usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("", None),
    ],
)
def test_retry_after_is_honoured_for_any_failing_status(text: str, seconds: float | None) -> None:
    assert answered(418, retry_after=text).retry_after == seconds
    assert answered(200, retry_after=text).retry_after is None
