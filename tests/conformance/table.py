"""The words that the table is written in: what is sent, and what must come back.

A row is a claim about the contract, the line of the contract that it proves, one request and one
answer. `mark` repeats the contract's own: `doc` (the vendor's page says so), `seen` (client
programs rely on it), `ours` (decided here; left out with `--hosted`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

KEY = "{key}"  # becomes the key under test
SOURCE = "{source}"  # becomes the URL of a picture that the server can reach
BOUNDARY = "kit-7f3a9c"

Mark = Literal["doc", "seen", "ours"]

FIXED_TEXTS = {
    "file_size_too_large": "File size too large",
    "invalid_auth_token": "API Token not found",
    "insufficient_api_credits": "Insufficient credits available",
    "rate_limit_exceeded": "Too many requests",
    "internal_error": "Internal service error",
}
STATUSES = {
    "invalid_request_body": 400,
    "missing_parameter": 400,
    "invalid_parameter": 400,
    "unsupported_content_type": 400,
    "malformed_image": 400,
    "unsupported_image_format": 400,
    "file_size_too_large": 400,
    "resolution_too_high": 400,
    "unknown_foreground": 400,
    "invalid_auth_token": 401,
    "insufficient_api_credits": 403,
    "rate_limit_exceeded": 429,
    "internal_error": 500,
    "not_found": 404,
    "method_not_allowed": 405,
}


@dataclass(frozen=True)
class Part:
    """One part of a form. `picture` names what it carries, `text` is sent as it is.

    A text has a file name only where it is given.
    """

    name: str
    text: str = ""
    picture: str = ""
    file_name: str | None = None
    media_type: str | None = None


@dataclass(frozen=True)
class Request:
    """One request. `picture` names the one whose upscaling the answer must show.

    `rewrite` changes the body's bytes before they are sent.
    """

    method: str = "POST"
    path: str = "/v1/upscale"
    headers: tuple[tuple[str, str], ...] = (("X-API-KEY", KEY),)
    content_type: str | None = None
    body: bytes | None = None
    parts: tuple[Part, ...] = ()
    picture: str = ""
    is_chunked: bool = False
    rewrite: Callable[[bytes], bytes] | None = None

    def plus(self, *headers: tuple[str, str]) -> "Request":
        return replace(self, headers=(*self.headers, *headers))

    def without_key(self) -> "Request":
        kept = tuple(pair for pair in self.headers if pair[1] != KEY)
        return replace(self, headers=kept)


AT_ONCE_S = 5.0
"""Less than any time limit, and all the same long enough for a machine that pauses."""


@dataclass(frozen=True)
class Refused:
    """An error answer: its code, from which status and fixed text follow.

    `naming` are words that the text must hold, in any case. `within_s` is for refusals that must
    not wait for a body, a network or a decoder. `allows` is a method that Allow must list.
    """

    code: str
    naming: tuple[str, ...] = ()
    within_s: float | None = None
    allows: str = ""


@dataclass(frozen=True)
class Upscaled:
    """A success: the request's picture, `scale` times as large, by URL or as bytes."""

    scale: int = 2
    is_binary: bool = False


@dataclass(frozen=True)
class Plain:
    """Any other answer: `content_type` is compared without parameters, the body has `holds`."""

    status: int = 200
    content_type: str = ""
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    claim: str
    line: str
    request: Request
    answer: Refused | Upscaled | Plain
    mark: Mark = "doc"
    is_slow: bool = False


def form(picture: str = "photo", scale: str | None = "2", *more: Part, **part: Any) -> Request:
    """The plainest upload: the file first, then the scale, then `more`."""
    parts = [Part("image", picture=picture, **part)] if picture else []
    if scale is not None:
        parts.append(Part("scale", scale))
    return fields(*parts, *more)


def fields(*parts: Part) -> Request:
    shown = next((part.picture for part in parts if part.picture), "")
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return Request(content_type=content_type, parts=parts, picture=shown)


def json_body(value: Any, content_type: str = "application/json") -> Request:
    """A JSON body; text is sent as it stands, so that it may be broken."""
    text = value if isinstance(value, str) else json.dumps(value)
    return Request(content_type=content_type, body=text.encode("utf-8", "surrogatepass"))


def raw(body: bytes, content_type: str | None) -> Request:
    return Request(content_type=content_type, body=body)


def get(path: str, method: str = "GET") -> Request:
    return Request(method=method, path=path)
