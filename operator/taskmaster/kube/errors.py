"""The API server's refusals as exceptions, one class per answer that a caller treats differently.

The classes follow the HTTP status, because that is what the protocol in the design is written in: 422 is read the
object, 409 is repeat, 404 is gone. Two of them are not answers of the server. `Unanswered` says that the connection
failed or timed out, so that whether a write was applied is *unknown*; only a read can tell. `NotSent` says that we
ourselves refused to send.
"""

from typing import ClassVar

from taskmaster.kube.resource import Object


class ApiError(Exception):
    """A request that did not succeed; `retry_after` is in seconds, where the server asked for a pause."""

    default_status: ClassVar[int] = 0
    default_reason: ClassVar[str] = "Unknown"

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        reason: str = "",
        details: Object | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = self.default_status if status is None else status
        self.reason = reason or self.default_reason
        self.message = message
        self.details: Object = details or {}
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {self.reason}: {self.message}"

    @property
    def retriable(self) -> bool:
        """True if the same request may succeed later without anybody changing anything.

        401 is among them: a rotated token is read again before the next request.
        """
        return False


class Unauthorized(ApiError):
    """401: the token is missing, expired or revoked."""

    default_status = 401
    default_reason = "Unauthorized"

    @property
    def retriable(self) -> bool:
        """True: the token file is read again after a 401."""
        return True


class Forbidden(ApiError):
    """403: RBAC or an admission policy said no."""

    default_status = 403
    default_reason = "Forbidden"


class NotFound(ApiError):
    """404: no such object, or no such resource (its definition is not installed)."""

    default_status = 404
    default_reason = "NotFound"


class Conflict(ApiError):
    """409: a precondition on uid or resourceVersion failed, or the object changed during the write."""

    default_status = 409
    default_reason = "Conflict"


class AlreadyExists(ApiError):
    """409 of a create. Not a `Conflict`: repeating it cannot help."""

    default_status = 409
    default_reason = "AlreadyExists"


class Gone(ApiError):
    """410: the resourceVersion or the continue token is too old; list again."""

    default_status = 410
    default_reason = "Expired"


class TooLarge(ApiError):
    """413: the object would exceed what the server stores."""

    default_status = 413
    default_reason = "RequestEntityTooLarge"


class Unprocessable(ApiError):
    """422: a failed `test` of a JSON patch, a schema refusal and a CEL refusal alike."""

    default_status = 422
    default_reason = "Invalid"


class TooManyRequests(ApiError):
    """429: the server sheds load; it did not look at the request."""

    default_status = 429
    default_reason = "TooManyRequests"

    @property
    def retriable(self) -> bool:
        """True, after a pause."""
        return True


class ServerError(ApiError):
    """5xx. A write may have been applied all the same (an etcd time-out, for one)."""

    default_status = 500
    default_reason = "InternalError"

    @property
    def retriable(self) -> bool:
        """True, after reading the object."""
        return True


class Unanswered(ApiError):
    """No complete answer came: whether a write was applied is unknown."""

    default_reason = "Unanswered"

    @property
    def retriable(self) -> bool:
        """True, after reading the object."""
        return True


class NotSent(ApiError):
    """We did not send: leadership was gone, or the dispatcher was shutting down. Certainly not applied."""

    default_reason = "NotSent"


_BY_STATUS: dict[int, type[ApiError]] = {
    cls.default_status: cls
    for cls in (Unauthorized, Forbidden, NotFound, Conflict, Gone, TooLarge, Unprocessable, TooManyRequests)
}


def error_for(
    status: int, message: str, *, reason: str = "", details: Object | None = None, retry_after: float | None = None
) -> ApiError:
    """Return the exception for an HTTP status and a `Status` reason."""
    cls: type[ApiError] = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if status == 409 and reason == "AlreadyExists":
        cls = AlreadyExists
    return cls(message, status=status, reason=reason, details=details, retry_after=retry_after)


def error_from_status(body: Object, *, status: int | None = None, retry_after: float | None = None) -> ApiError:
    """Return the exception for a `Status` object, from an answer's body or from an ERROR event of a watch.

    `status` is the HTTP status where there was one; `retry_after` the header, which wins over
    `details.retryAfterSeconds`.
    """
    details = body.get("details")
    details = details if isinstance(details, dict) else {}
    code = body.get("code")
    if status is None:
        status = code if isinstance(code, int) else 500
    if retry_after is None and isinstance(hint := details.get("retryAfterSeconds"), int) and hint > 0:
        retry_after = float(hint)
    reason = body.get("reason")
    return error_for(
        status,
        str(body.get("message") or ""),
        reason=reason if isinstance(reason, str) else "",
        details=details,
        retry_after=retry_after,
    )
