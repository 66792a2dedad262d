"""What a request asks for, out of either body kind: the checks of missing and bad parameters."""

import asyncio
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from service.api.body.budget import Share
from service.api.body.content_type import BodyKind, choose_body_kind
from service.api.body.json_object import parse_json
from service.api.body.parts import Part, parse_parts
from service.api.body.reading import OVERHEAD_BYTES, read_body
from service.api.body.scale import parse_scale
from service.api.source.url import check_source_url
from service.config import Settings
from service.errors import FileSizeTooLarge, InvalidParameter, MissingParameter


@dataclass(frozen=True, slots=True)
class Asked:
    """Exactly one of `image` (encoded bytes) and `image_url` is given. `scale` is 2 or 4."""

    image: bytes | None
    image_url: str | None
    scale: int


@dataclass(frozen=True, slots=True)
class Fields:
    """The three known fields before any check; None where absent, null or empty."""

    image: bytes | str | None
    image_url: object | None
    scale: object | None


async def read_asked(request: Request, settings: Settings, share: Share) -> Asked:
    """Read and check the body, in the contract's order.

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
    if kind is BodyKind.JSON:
        fields = fields_of_json(await asyncio.to_thread(parse_json, body))
    else:
        fields = fields_of_parts(await asyncio.to_thread(parse_parts, body, content_type or ""))
    if isinstance(fields.image, bytes) and len(fields.image) > settings.max_file_bytes:
        raise FileSizeTooLarge(detail=f"a part of {len(fields.image)} bytes")
    return check_fields(fields)


def fields_of_json(values: dict[str, Any]) -> Fields:
    """`image` is not a JSON field: base64 or a data URI there counts as no image."""
    return Fields(None, _unless_empty(values.get("image_url")), _unless_empty(values.get("scale")))


def fields_of_parts(parts: list[Part]) -> Fields:
    """Of a repeated name the last counts. A file field left empty by a browser is absent."""
    last = {part.name: part for part in parts}
    image = last.get("image")
    image_value: bytes | str | None = None
    if image is not None and image.file_name is None:
        image_value = image.text or None
    elif image is not None and (image.file_name or image.data):
        image_value = image.data
    return Fields(image_value, _text(last.get("image_url")), _text(last.get("scale")))


def check_fields(fields: Fields) -> Asked:
    """What was asked for, once nothing is missing and nothing is wrong.

    Raises:
        MissingParameter: the text names what is missing.
        InvalidParameter
    """
    missing = []
    if fields.image is None and fields.image_url is None:
        missing.append("image or image_url")
    if fields.scale is None:
        missing.append("scale")
    if missing:
        raise MissingParameter("Missing parameter: " + ", ".join(missing))
    if isinstance(fields.image, str):
        raise InvalidParameter("image must be a file")
    image_url = None if fields.image is not None else check_source_url(fields.image_url)
    return Asked(fields.image, image_url, parse_scale(fields.scale))


def _unless_empty(value: object) -> object | None:
    return None if value == "" else value


def _text(part: Part | None) -> object | None:
    """A text part's value. A file in its place is a wrong value, not an absent one."""
    if part is None:
        return None
    return part.data if part.file_name is not None else part.text or None
