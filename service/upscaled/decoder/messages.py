"""What a worker and a decoder process say to each other, one frame each way for one file.

    worker                          decoder
    payload: the encoded file   ->
                                <-  header: `{"refused": ..., "detail": ...}`, or the image's
                                    metadata, with the descriptor of memory that holds its pixels

The memory holds colour, then alpha where there is any, then the colour profile. Channels of 16 bits
are in the machine's own byte order. Nothing that a decoder says is used before it has been checked:
a file may have taken the process over.
"""

import errno
import json
import math
import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from upscaled.errors import (
    MalformedImage,
    ResolutionTooHigh,
    ServiceError,
    UnsupportedImageFormat,
)
from upscaled.image.header import MAX_PIXELS
from upscaled.image.pixels import is_deep
from upscaled.image.types import Credit, Image
from upscaled.process.channel import Frame
from upscaled.process.shared_memory import Bytes, read_memory

_MAX_ICC_BYTES: Final = 2**31
_MAX_DETAIL_CHARACTERS: Final = 1000
_DTYPES: Final[Mapping[int, np.dtype[np.uint8 | np.uint16]]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
}
_REFUSALS: Final[Mapping[str, type[ServiceError]]] = {
    kind.error_code: kind for kind in (MalformedImage, ResolutionTooHigh, UnsupportedImageFormat)
}


class ProtocolError(Exception):
    """The decoder sent something that no sound decoder would."""


def pack_refusal(error: ServiceError) -> bytes:
    """Return the header that says why a file is refused."""
    detail = error.detail[:_MAX_DETAIL_CHARACTERS]
    return json.dumps({"refused": error.error_code, "detail": detail}).encode()


def pack_image(image: Image) -> tuple[bytes, list[memoryview]]:
    """Return the header of an image, and the parts of the memory that goes with it."""
    metadata = {
        "height_px": image.height_px,
        "width_px": image.width_px,
        "has_alpha": image.alpha is not None,
        "bits": 16 if is_deep(image.rgb) else 8,
        "icc_bytes": len(image.icc or b""),
        "dpi": image.dpi,
        "credit": [image.credit.artist, image.credit.copyright] if image.credit else None,
        "jpeg_quality": image.jpeg_quality,
    }
    parts = [np.ascontiguousarray(image.rgb).data]
    if image.alpha is not None:
        parts.append(np.ascontiguousarray(image.alpha).data)
    if image.icc:
        parts.append(memoryview(image.icc))
    return json.dumps(metadata).encode(), parts


def unpack(reply: Frame) -> Image:
    """Return the image of a reply; its planes are views of the memory. The descriptor is closed.

    Raises:
        MalformedImage, ResolutionTooHigh, UnsupportedImageFormat: the decoder refuses the file.
        ProtocolError: the reply makes no sense, or the memory is of another size.
        MemoryError: this process cannot map or copy the memory, which is not the decoder's fault.
    """
    try:
        metadata = _parse(reply.header)
        if reply.fd is None:
            raise _rebuild_refusal(metadata)
        return _read_image(metadata, reply.fd)
    finally:
        if reply.fd is not None:
            os.close(reply.fd)


def _parse(header: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the header is no JSON") from error
    if not isinstance(metadata, dict):
        raise ProtocolError("the header is no JSON object")
    return metadata


def _rebuild_refusal(metadata: Mapping[str, Any]) -> ServiceError:
    kind = _REFUSALS.get(str(metadata.get("refused")))
    if kind is None:
        raise ProtocolError("neither pixels nor a refusal")
    return kind(detail=str(metadata.get("detail")))


def _read_image(metadata: Mapping[str, Any], fd: int) -> Image:
    height, width = _read_count(metadata, "height_px", 1), _read_count(metadata, "width_px", 1)
    icc_bytes = _read_count(metadata, "icc_bytes", 0)
    has_alpha = metadata.get("has_alpha") is True
    pixels = height * width
    if pixels > MAX_PIXELS or icc_bytes > _MAX_ICC_BYTES:
        raise ProtocolError(f"{width} x {height} pixels, a profile of {icc_bytes} bytes")
    dtype = _DTYPES.get(_read_count(metadata, "bits", 8))
    if dtype is None:
        raise ProtocolError(f"{metadata['bits']} bits a channel")
    colour_end = 3 * pixels * dtype.itemsize
    alpha_end = colour_end + pixels * dtype.itemsize * has_alpha
    memory = _map(fd, alpha_end + icc_bytes)
    alpha = memory[colour_end:alpha_end].view(dtype).reshape(height, width) if has_alpha else None
    return Image(
        rgb=memory[:colour_end].view(dtype).reshape(height, width, 3),
        alpha=alpha,
        icc=memory[alpha_end:].tobytes() or None,
        dpi=_read_dpi(metadata.get("dpi")),
        credit=_read_credit(metadata.get("credit")),
        jpeg_quality=_read_quality(metadata.get("jpeg_quality")),
    )


def _map(fd: int, size_bytes: int) -> Bytes:
    try:
        return read_memory(fd, size_bytes)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError("no address space for a picture's pixels") from error
        raise ProtocolError(str(error)) from error


def _read_count(metadata: Mapping[str, Any], name: str, least: int) -> int:
    value = metadata.get(name)
    if type(value) is not int or value < least:
        raise ProtocolError(f"{name} is {value!r}")
    return value


def _read_dpi(value: object) -> tuple[float, float] | None:
    match value:
        case None:
            return None
        case [int() | float() as across, int() | float() as down] if math.isfinite(
            across
        ) and math.isfinite(down):
            return float(across), float(down)
    raise ProtocolError(f"dpi is {value!r}")


def _read_credit(value: object) -> Credit | None:
    match value:
        case None:
            return None
        case [str() as artist, str() as owner]:
            return Credit(artist=artist, copyright=owner)
    raise ProtocolError("credit is no pair of texts")


def _read_quality(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 100:
        raise ProtocolError(f"jpeg_quality is {value!r}")
    return value
