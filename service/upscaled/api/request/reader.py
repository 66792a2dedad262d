"""Read an upscale request: content type, body, parameters, and whether it is answered by an image.

FastAPI reads a body before it solves dependencies, so the body is read here: after the API key and
the rate, counted against the key's memory, and no further than the largest upload.

A client may send tens of thousands of bytes of `Accept`, and they are parsed in the event loop. So
the header is scanned token by token, each byte once: a pattern is a sequence of runs of characters,
each ended by a character that the run cannot hold, and what is quoted is matched possessively.
So no pattern backtracks.
"""

import asyncio
import re
from dataclasses import dataclass
from io import BytesIO
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.requests import Request

from upscaled import errors
from upscaled.api.cancellation import ClientDisconnected
from upscaled.api.memory import MemoryShare
from upscaled.api.request.available_models import require_denoise, require_model
from upscaled.api.request.choices import read_choices, read_denoise_strength
from upscaled.api.request.fields import Fields, fields_of_json, fields_of_parts, parse_json
from upscaled.api.request.multipart import parse_parts
from upscaled.config import Settings
from upscaled.fetch.url import check_source_url
from upscaled.image.output import NO_CHOICE, OutputChoice

OVERHEAD_BYTES: Final = 64 * 1024
"""Allowed for what a form adds to its file: boundaries, part headers, the other fields."""

_OPTIONS: Final = ("x-upscale-", "prefer")
"""The beginnings of all headers that `upscaled.api.request.choices` reads."""
_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_COMPRESSED: Final = frozenset({"br", "compress", "deflate", "gzip", "x-gzip", "zstd"})
_SCALE: Final = re.compile(r"([24])(?:\.0+)?", re.ASCII)
# A media type's name as registered (RFC 6838, 4.2). RFC 9110 alone would allow `'image/*'`, quotes
# included, which a client is known to send by mistake.
_TYPE: Final = r"\*|[0-9A-Za-z][0-9A-Za-z!#$&^_.+-]*"
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_QUOTED: Final = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'  # RFC 9110, 5.6.4
_RANGE: Final = re.compile(rf"({_TYPE})/({_TYPE})")
_PARAMETER: Final = re.compile(rf"({_NAME})=({_NAME}|{_QUOTED})")
# Empty members are passed over (RFC 9110, 5.6.1.2), and so are empty parameters (5.6.6).
_BETWEEN_MEMBERS: Final = re.compile(r"[ \t,]*")
_BETWEEN_PARAMETERS: Final = re.compile(r"[ \t;]*")
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

# The types that an answer may have. This header never decides the image's format.
_JSON_TYPE: Final = ("application", "json")
_IMAGES: Final = frozenset({("image", "jpeg"), ("image", "png")})


@dataclass(frozen=True, slots=True)
class UpscaleParameters:
    """Checked parameters of a request: either `image` or `image_url` is None.

    model: with the strength of denoising that the request gives (`upscaled_models.registry`); ""
    for the server's own choice. choice: the options of the result.
    """

    image: bytes | None
    image_url: str | None
    scale: int
    model: str = ""
    choice: OutputChoice = NO_CHOICE


async def read_parameters(
    request: Request, settings: Settings, share: MemoryShare
) -> UpscaleParameters:
    """Read and check the body, then the choices beyond the contract.

    Raises:
        UnsupportedContentType: the body is neither JSON nor a form.
        FileSizeTooLarge: the body, or the picture in it, is larger than allowed.
        InvalidRequestBody: the body is broken, or not complete in time.
        MissingParameter: there is no picture or no scale.
        InvalidParameter: a parameter has a bad value.
        RateLimitExceeded: too many bodies of the key, or of all keys, are arriving at once.
        ClientDisconnected: the client left before the end of the body.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip(" \t").lower()
    if media_type not in (_JSON, _FORM):
        raise errors.UnsupportedContentType(detail=repr(media_type[:100]))
    body = await read_body(
        request,
        share,
        limit_bytes=settings.max_file_bytes + OVERHEAD_BYTES,
        timeout_s=settings.body_timeout_s,
    )
    fields = await asyncio.to_thread(_parse_fields, media_type, body, request.headers)
    if isinstance(fields.image, bytes) and len(fields.image) > settings.max_file_bytes:
        raise errors.FileSizeTooLarge(detail=f"a part of {len(fields.image)} bytes")
    image, image_url, scale = check_fields(fields)
    if not fields.options and not has_options(request.headers):
        return UpscaleParameters(image, image_url, scale)
    model, choice = read_choices(request.headers, fields.options)
    if model:
        await asyncio.to_thread(require_model, model, scale, settings.models_dir)
    strength = read_denoise_strength(request.headers, fields.options)
    if strength is not None:
        model = await asyncio.to_thread(require_denoise, model, strength, scale, settings)
    return UpscaleParameters(image, image_url, scale, model, choice)


def has_options(headers: Headers) -> bool:
    """Return whether a request has headers of options beyond the contract."""
    return any(name.startswith(_OPTIONS) for name in headers)


async def read_body(
    request: Request, share: MemoryShare, *, limit_bytes: int, timeout_s: float
) -> bytes:
    """Return the body, of at most `limit_bytes`, counted against `share`.

    Raises:
        FileSizeTooLarge: declared longer, at once; or found longer, reading no further.
        InvalidRequestBody: not complete within `timeout_s`.
        RateLimitExceeded: too many bodies of the key, or of all keys, are arriving at once.
        ClientDisconnected: the client left before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise errors.FileSizeTooLarge(detail=f"declared {declared[:20]} bytes")
    try:
        with share.body():
            async with asyncio.timeout(timeout_s):
                return await _read_counted(request, share, limit_bytes)
    except TimeoutError:
        raise errors.InvalidRequestBody("Request body not received in time") from None


async def _read_counted(request: Request, share: MemoryShare, limit_bytes: int) -> bytes:
    body = BytesIO()  # not a list: a client may send its body in pieces of one byte
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk = message.get("body", b"")
        size_bytes = body.tell() + len(chunk)
        if size_bytes > limit_bytes:
            raise errors.FileSizeTooLarge(detail=f"read {size_bytes} bytes")
        share.count(len(chunk))
        body.write(chunk)
        if not message.get("more_body", False):
            return body.getvalue()  # which does not copy


def _parse_fields(media_type: str, body: bytes, headers: Headers) -> Fields:
    """Parse the body; a broken one that is said to be compressed is refused for that."""
    try:
        if media_type == _JSON:
            return fields_of_json(parse_json(body))
        return fields_of_parts(parse_parts(body, headers["content-type"]))
    except errors.InvalidRequestBody as error:
        codings = headers.get("content-encoding", "").lower().replace(",", " ").split()
        if _COMPRESSED.isdisjoint(codings):
            raise
        text = "Content-Encoding is not supported: send the body uncompressed"
        raise errors.InvalidRequestBody(text, detail=error.public_text) from None


def check_fields(fields: Fields) -> tuple[bytes | None, str | None, int]:
    """Return `image`, `image_url` and `scale`: exactly one of the first two is not None.

    Raises:
        MissingParameter: the text names what is missing, and what was sent in its stead.
        InvalidParameter: text in place of a file, a bad URL or a bad scale.
    """
    missing = []
    if fields.image is None and fields.image_url is None:
        missing.append("image or image_url")
    if fields.scale is None:
        missing.append("scale")
    if missing:
        raise errors.MissingParameter(
            "Missing parameter: " + ", ".join(missing) + fields.name_expected()
        )
    if isinstance(fields.image, str):
        raise errors.InvalidParameter("image must be a file; a URL is sent as image_url")
    image_url = None if fields.image is not None else check_source_url(fields.image_url)
    return fields.image, image_url, parse_scale(fields.scale)


def parse_scale(value: object) -> int:
    """Return 2 or 4 from `2`, `2.0`, `"2"` or `"2.0"`.

    Raises:
        InvalidParameter: anything else: `true`, 3, NaN, `[]`, `" 2 "`, full-width digits.
    """
    if isinstance(value, str):
        match = _SCALE.fullmatch(value)
        if match:
            return int(match[1])
    elif isinstance(value, int | float) and not isinstance(value, bool) and value in (2, 4):
        return int(value)
    raise errors.InvalidParameter("scale must be 2 or 4")


class MediaRange(NamedTuple):
    """One member of an `Accept` header. `weight` is its `q`, from 0 to 1."""

    type: str
    subtype: str
    weight: float


def wants_image(accept: str | None) -> bool:
    """Return whether the client prefers the image itself to JSON with its URL (RFC 9110, 12.5.1).

    Only when the best image type weighs more than JSON. A tie is JSON, so are an absent header
    and one with an illegal member, which is ignored whole.
    """
    heaviest: dict[tuple[str, str], float] = {}
    for main, subtype, weight in parse_accept(accept or ""):
        heaviest[main, subtype] = max(weight, heaviest.get((main, subtype), 0.0))
    images = _IMAGES | {each for each in heaviest if each[0] == "image" and each[1] != "*"}
    best_image = max(_weigh(media_type, heaviest) for media_type in images)
    return best_image > _weigh(_JSON_TYPE, heaviest)


def parse_accept(accept: str) -> list[MediaRange]:
    """Return an `Accept` header's media ranges, in lower case; none if it breaks the grammar."""
    ranges: list[MediaRange] = []
    position = _skip(_BETWEEN_MEMBERS, accept, 0)
    while position < len(accept):
        member = _RANGE.match(accept, position)
        if member is None or (member[1] == "*" and member[2] != "*"):
            return []
        weight, position = _scan_parameters(accept, member.end())
        if weight is None:
            return []
        ranges.append(MediaRange(member[1].lower(), member[2].lower(), weight))
        position = _skip(_BETWEEN_MEMBERS, accept, position)
    return ranges


def _scan_parameters(accept: str, position: int) -> tuple[float | None, int]:
    """Return the weight of the member whose parameters begin at `position`, and where it ends.

    The first parameter named `q` is the weight; without one it is 1, and None if the parameters
    break the grammar.
    """
    weight: float | None = None
    begin, position = position, _skip(_BETWEEN_PARAMETERS, accept, position)
    while position < len(accept) and accept[position] != ",":
        parameter = _PARAMETER.match(accept, position)
        if parameter is None or accept.find(";", begin, position) == -1:
            return None, position
        if weight is None and parameter[1] in ("q", "Q"):
            if not _WEIGHT.fullmatch(parameter[2]):
                return None, position
            weight = float(parameter[2])
        begin, position = parameter.end(), _skip(_BETWEEN_PARAMETERS, accept, parameter.end())
    return 1.0 if weight is None else weight, position


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return the position behind what `pattern` matches at `position`."""
    match = pattern.match(text, position)
    return position if match is None else match.end()


def _weigh(media_type: tuple[str, str], heaviest: dict[tuple[str, str], float]) -> float:
    """Return the weight of the most specific range that matches; 0 where none does."""
    for wanted in (media_type, (media_type[0], "*"), ("*", "*")):
        if wanted in heaviest:
            return heaviest[wanted]
    return 0.0
