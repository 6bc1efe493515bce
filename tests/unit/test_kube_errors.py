import pytest

from taskmaster.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    NotSent,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unanswered,
    Unauthorized,
    Unprocessable,
    error_from_status,
)


@pytest.mark.parametrize(
    ("status", "reason", "kind", "retriable"),
    [
        (400, "BadRequest", ApiError, False),
        (401, "Unauthorized", Unauthorized, True),
        (403, "Forbidden", Forbidden, False),
        (404, "NotFound", NotFound, False),
        (409, "Conflict", Conflict, False),
        (409, "AlreadyExists", AlreadyExists, False),
        (410, "Expired", Gone, False),
        (413, "RequestEntityTooLarge", TooLarge, False),
        (422, "Invalid", Unprocessable, False),
        (429, "TooManyRequests", TooManyRequests, True),
        (500, "InternalError", ServerError, True),
        (503, "ServiceUnavailable", ServerError, True),
        (504, "Timeout", ServerError, True),
    ],
)
def test_each_answer_has_its_class(status: int, reason: str, kind: type[ApiError], retriable: bool) -> None:
    error = error_from_status({"kind": "Status", "code": status, "reason": reason, "message": "why"})
    assert type(error) is kind
    assert (error.status, error.reason, error.message, error.retriable) == (status, reason, "why", retriable)


def test_own_refusals_have_no_status() -> None:
    assert (Unanswered("x").status, Unanswered("x").retriable) == (0, True)
    assert (NotSent("x").status, NotSent("x").retriable) == (0, False)
    assert str(Unanswered("reset")) == "no answer Unanswered: reset"


def test_pause_asked_for_is_taken_from_the_header_before_the_details() -> None:
    body = {"code": 429, "details": {"retryAfterSeconds": 5}}
    assert error_from_status(body).retry_after == 5.0
    assert error_from_status(body, retry_after=2.0).retry_after == 2.0
    assert error_from_status({"code": 429}).retry_after is None


@pytest.mark.parametrize("body", [{}, {"code": "x", "details": 3, "reason": [], "message": None}])
def test_status_of_nonsense_is_a_server_error(body: dict[str, object]) -> None:
    error = error_from_status(body)
    assert type(error) is ServerError
    assert (error.status, error.message, error.details) == (500, "", {})
