"""Errors that a client can see: status, code and public text, and a detail for the log alone.

A worker sends an error to the front end as its `error_code` and `public_text` (see `rebuild`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final, Literal, get_args

from upscaled_models.errors import ResultNotFinite

RefusalReason = Literal[
    "key_rate",
    "key_bodies",
    "unread_answers",
    "body_memory",
    "queue",
    "gave_way",
    "starting",
    "stopping",
    "watchers",
    "jobs",
    "admin_guesses",
]
"""Causes of a 429.

key_rate: the key's rate. key_bodies: the key has as many unfinished bodies as its credits allow.
unread_answers: the key's clients do not read their images. body_memory, queue: the memory for
bodies or the queue is full, and the key has its share of it. gave_way: another key came, and this
one had more than its share. starting: no worker is ready, and several starts have failed.
stopping: the server ends. watchers: the key watches the progress of too many requests.
jobs: the key has too many jobs that have not ended. admin_guesses: the address has sent too many
wrong keys of administrators.
"""
REFUSAL_REASONS: Final[tuple[RefusalReason, ...]] = get_args(RefusalReason)


class ServiceError(Exception):
    """Response other than success.

    `public_text` and `headers` are sent to the client, so they never hold a path, an address or an
    exception's text. `detail` goes to the log only.
    """

    status: ClassVar[int] = 500
    error_code: ClassVar[str] = "internal_error"
    default_text: ClassVar[str] = "Internal service error"

    def __init__(self, public_text: str | None = None, *, detail: str = "") -> None:
        self.public_text = public_text if public_text is not None else self.default_text
        self.detail = detail
        self.headers: dict[str, str] = {}
        super().__init__(f"{self.public_text} ({detail})" if detail else self.public_text)


class InvalidRequestBody(ServiceError):
    status = 400
    error_code = "invalid_request_body"
    default_text = "Invalid request body"


class MissingParameter(ServiceError):
    status = 400
    error_code = "missing_parameter"
    default_text = "Missing parameter"


class InvalidParameter(ServiceError):
    status = 400
    error_code = "invalid_parameter"
    default_text = "Invalid parameter"


class UnsupportedContentType(ServiceError):
    status = 400
    error_code = "unsupported_content_type"
    default_text = "Unsupported content type: use application/json or multipart/form-data"


class MalformedImage(ServiceError):
    status = 400
    error_code = "malformed_image"
    default_text = "The image is malformed"


class UnsupportedImageFormat(ServiceError):
    status = 400
    error_code = "unsupported_image_format"
    default_text = "Unsupported image format"


class FileSizeTooLarge(ServiceError):
    status = 400
    error_code = "file_size_too_large"
    default_text = "File size too large"


class ResolutionTooHigh(ServiceError):
    status = 400
    error_code = "resolution_too_high"
    default_text = "Image resolution too high"


class InvalidAuthToken(ServiceError):
    status = 401
    error_code = "invalid_auth_token"
    default_text = "API Token not found"


class InsufficientApiCredits(ServiceError):
    status = 403
    error_code = "insufficient_api_credits"
    default_text = "Insufficient credits available"


class NotFound(ServiceError):
    status = 404
    error_code = "not_found"
    default_text = "Not found"


class MethodNotAllowed(ServiceError):
    status = 405
    error_code = "method_not_allowed"
    default_text = "Method not allowed"

    def __init__(self, allow: str) -> None:
        super().__init__()
        self.headers["Allow"] = allow


class RequestInProgress(ServiceError):
    """The request with this `Idempotency-Key` is still running, or has no recorded outcome yet."""

    status = 409
    error_code = "request_in_progress"
    default_text = "A request with this Idempotency-Key is in progress"

    def __init__(self, public_text: str | None = None, *, detail: str = "") -> None:
        super().__init__(public_text, detail=detail)
        self.headers["Retry-After"] = "5"  # a retry settles one whose front end died after 30 s


class RateLimitExceeded(ServiceError):
    status = 429
    error_code = "rate_limit_exceeded"
    default_text = "Too many requests"

    def __init__(
        self, retry_after_s: int, *, reason: RefusalReason = "queue", detail: str = ""
    ) -> None:
        """Refuse for `retry_after_s` whole seconds, after which the same request would pass."""
        super().__init__(detail=detail)
        self.retry_after_s = max(1, retry_after_s)
        self.reason = reason
        self.headers["Retry-After"] = str(self.retry_after_s)


class InternalError(ServiceError):
    pass


@contextmanager
def engine_errors() -> Iterator[None]:
    """Raise `ResultNotFinite` of an engine as the `InternalError` that clients and the log see.

    `EngineOutOfMemory` passes: its caller tries smaller windows.
    """
    try:
        yield
    except ResultNotFinite as error:
        raise InternalError(detail=str(error)) from error


# What a worker may say about one job. Anything else it says becomes an InternalError.
_FROM_WORKERS: Final[dict[str, type[ServiceError]]] = {
    kind.error_code: kind
    for kind in (
        MalformedImage,
        UnsupportedImageFormat,
        ResolutionTooHigh,
        InvalidParameter,
        InternalError,
    )
}


def rebuild(error_code: str, public_text: str) -> ServiceError:
    """Return the error that a worker reported by its code and public text."""
    kind = _FROM_WORKERS.get(error_code)
    if kind is None:
        return InternalError(detail=f"worker reported {error_code!r}")
    return kind(public_text)
