"""What a request asks for, out of either body kind: the checks of missing and bad parameters."""

import asyncio
import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from starlette.requests import Request

from upscaled.api.available_models import MODEL_HEADER, parse_model_header, require_model
from upscaled.api.cancellation import ClientGone
from upscaled.api.memory import Share
from upscaled.api.request.fields import (
    Fields,
    fields_of_json,
    fields_of_parts,
    name_expected,
    parse_json,
)
from upscaled.api.request.multipart import parse_parts
from upscaled.config import Settings
from upscaled.errors import (
    FileSizeTooLarge,
    InvalidParameter,
    InvalidRequestBody,
    MissingParameter,
    UnsupportedContentType,
)
from upscaled.fetch.url import check_source_url


class BodyKind(Enum):
    JSON = "application/json"
    MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Asked:
    """Exactly one of `image` (encoded bytes) and `image_url` is given. `scale` is 2 or 4.

    model: the one that the request names; "" for the server's own choice.
    """

    image: bytes | None
    image_url: str | None
    scale: int
    model: str = ""


async def read_asked(request: Request, settings: Settings, share: Share) -> Asked:
    """Read and check the body, then the model's header, in the contract's order.

    Raises:
        UnsupportedContentType, FileSizeTooLarge, InvalidRequestBody, MissingParameter,
        InvalidParameter, RateLimitExceeded, ClientGone.
    """
    content_type = request.headers.get("content-type")
    kind = choose_body_kind(content_type)
    body = await read_body(
        request,
        share,
        limit_bytes=settings.max_file_bytes + OVERHEAD_BYTES,
        timeout_s=settings.body_timeout_s,
    )
    fields = await asyncio.to_thread(_parse_fields, kind, body, content_type or "")
    if isinstance(fields.image, bytes) and len(fields.image) > settings.max_file_bytes:
        raise FileSizeTooLarge(detail=f"a part of {len(fields.image)} bytes")
    asked = check_fields(fields)
    model = parse_model_header(request.headers.getlist(MODEL_HEADER))
    if model:
        await asyncio.to_thread(require_model, model, asked.scale, settings.models_dir)
    return replace(asked, model=model)


def _parse_fields(kind: BodyKind, body: bytes, content_type: str) -> Fields:
    """
    Raises:
        InvalidRequestBody
    """
    if kind is BodyKind.JSON:
        return fields_of_json(parse_json(body))
    return fields_of_parts(parse_parts(body, content_type))


def check_fields(fields: Fields) -> Asked:
    """What was asked for, once nothing is missing and nothing is wrong.

    Raises:
        MissingParameter: the text names what is missing, and what was sent in its stead.
        InvalidParameter
    """
    missing = []
    if fields.image is None and fields.image_url is None:
        missing.append("image or image_url")
    if fields.scale is None:
        missing.append("scale")
    if missing:
        hint = name_expected(
            fields.unknown,
            is_image_missing="image or image_url" in missing,
            is_scale_missing="scale" in missing,
        )
        raise MissingParameter("Missing parameter: " + ", ".join(missing) + hint)
    if isinstance(fields.image, str):
        raise InvalidParameter("image must be a file; a URL is sent as image_url")
    image_url = None if fields.image is not None else check_source_url(fields.image_url)
    return Asked(fields.image, image_url, parse_scale(fields.scale))


# What a form adds to its file: boundaries, part headers, the other fields.
OVERHEAD_BYTES = 64 * 1024


async def read_body(request: Request, share: Share, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The body, of at most `limit_bytes`, counted against `share`.

    Raises:
        FileSizeTooLarge: declared longer, at once; or found longer, reading no further.
        InvalidRequestBody: not complete within `timeout_s`.
        RateLimitExceeded: too many bodies of the key, or of all keys, are arriving at once.
        ClientGone: the client left before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise FileSizeTooLarge(detail=f"declared {declared[:20]} bytes")
    try:
        with share.body():
            async with asyncio.timeout(timeout_s):
                return await _read_counted(request, share, limit_bytes)
    except TimeoutError:
        raise InvalidRequestBody("Request body not received in time") from None


async def _read_counted(request: Request, share: Share, limit_bytes: int) -> bytes:
    body = bytearray()  # not a list: a client may send its body in pieces of one byte
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        if len(body) + len(chunk) > limit_bytes:
            raise FileSizeTooLarge(detail=f"read {len(body) + len(chunk)} bytes")
        share.take(len(chunk))
        body += chunk
        if not message.get("more_body", False):
            return bytes(body)


def choose_body_kind(content_type: str | None) -> BodyKind:
    """The kind by the media type alone: any letter case, parameters ignored.

    Raises:
        UnsupportedContentType: no Content-Type, or any other.
    """
    media_type = (content_type or "").partition(";")[0].strip(" \t").lower()
    try:
        return BodyKind(media_type)
    except ValueError:
        raise UnsupportedContentType(detail=repr(media_type[:100])) from None


_TEXT: Final = re.compile(r"([24])(?:\.0+)?", re.ASCII)


def parse_scale(value: object) -> int:
    """2 or 4 from `2`, `2.0`, `"2"` or `"2.0"`.

    Raises:
        InvalidParameter: anything else: `true`, 3, NaN, `[]`, `" 2 "`, full-width digits.
    """
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match:
            return int(match[1])
    elif isinstance(value, int | float) and not isinstance(value, bool) and value in (2, 4):
        return int(value)
    raise InvalidParameter("scale must be 2 or 4")
