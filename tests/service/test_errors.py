"""Errors equal the table of the contract, and a worker may report only some of them."""

import pytest

from upscaled import errors
from upscaled.errors import (
    InternalError,
    MalformedImage,
    MethodNotAllowed,
    MissingParameter,
    RateLimitExceeded,
    ServiceError,
    rebuild,
)

# Status, error_code and, where the contract fixes it, the text.
CONTRACT = [
    (400, "invalid_request_body", None),
    (400, "missing_parameter", None),
    (400, "invalid_parameter", None),
    (400, "unsupported_content_type", None),
    (400, "malformed_image", None),
    (400, "unsupported_image_format", None),
    (400, "file_size_too_large", "File size too large"),
    (400, "resolution_too_high", None),
    (401, "invalid_auth_token", "API Token not found"),
    (403, "insufficient_api_credits", "Insufficient credits available"),
    (404, "not_found", None),
    (405, "method_not_allowed", None),
    # Beside the contract: only with an `Idempotency-Key`.
    (409, "request_in_progress", None),
    (429, "rate_limit_exceeded", "Too many requests"),
    (500, "internal_error", "Internal service error"),
]


def kinds() -> list[type[ServiceError]]:
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
    ]


def kind_of(error_code: str) -> type[ServiceError]:
    (kind,) = (kind for kind in kinds() if kind.error_code == error_code)
    return kind


def test_every_error_of_the_contract_exists_and_no_other() -> None:
    assert sorted((kind.status, kind.error_code) for kind in kinds()) == sorted(
        (status, error_code) for status, error_code, _ in CONTRACT
    )


@pytest.mark.parametrize(("status", "error_code", "text"), CONTRACT)
def test_an_error_has_the_contracts_status_and_text(
    status: int, error_code: str, text: str | None
) -> None:
    kind = kind_of(error_code)
    assert kind.status == status
    assert kind.default_text
    if text is not None:
        assert kind.default_text == text


def test_a_given_text_replaces_the_default() -> None:
    assert MissingParameter("scale is missing").public_text == "scale is missing"
    assert MissingParameter().public_text == MissingParameter.default_text
    assert MissingParameter("").public_text == ""


def test_the_detail_is_for_the_log_only() -> None:
    error = InternalError(detail="disk /data is full")
    assert error.public_text == "Internal service error"
    assert "/data" in str(error)


def test_a_405_error_has_the_allowed_methods() -> None:
    assert MethodNotAllowed("POST").headers == {"Allow": "POST"}


@pytest.mark.parametrize(("given_s", "said"), [(0, "1"), (-3, "1"), (1, "1"), (2, "2"), (90, "90")])
def test_a_429_error_has_retry_after(given_s: int, said: str) -> None:
    assert RateLimitExceeded(given_s).headers == {"Retry-After": said}


def test_other_errors_have_no_headers() -> None:
    assert MalformedImage().headers == {}


@pytest.mark.parametrize(
    "error_code",
    [
        "malformed_image",
        "unsupported_image_format",
        "resolution_too_high",
        "invalid_parameter",
        "internal_error",
    ],
)
def test_a_worker_may_raise_these_errors(error_code: str) -> None:
    error = rebuild(error_code, "the worker's text")
    assert type(error) is kind_of(error_code)
    assert error.public_text == "the worker's text"


@pytest.mark.parametrize(
    "error_code",
    ["rate_limit_exceeded", "invalid_auth_token", "method_not_allowed", "", "nonsense"],
)
def test_anything_else_from_a_worker_is_an_internal_error(error_code: str) -> None:
    error = rebuild(error_code, "a text that must not be shown")
    assert type(error) is InternalError
    assert error.public_text == "Internal service error"
    assert error_code in error.detail
