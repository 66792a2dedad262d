"""What a request asks for, out of either body kind: the checks of missing and bad parameters."""

import asyncio
from dataclasses import dataclass, replace

from starlette.requests import Request

from upscaled.api.body.budget import Share
from upscaled.api.body.content_type import BodyKind, choose_body_kind
from upscaled.api.body.fields import Fields, fields_of_json, fields_of_parts
from upscaled.api.body.json_object import parse_json
from upscaled.api.body.misnamed import name_expected
from upscaled.api.body.parts import parse_parts
from upscaled.api.body.reading import OVERHEAD_BYTES, read_body
from upscaled.api.body.scale import parse_scale
from upscaled.api.present_models import MODEL_HEADER, parse_model_header, require_model
from upscaled.config import Settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, MissingParameter
from upscaled.fetch.url import check_source_url


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
