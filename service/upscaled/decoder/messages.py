"""An image as facts and memory, and back.

The memory holds colour, then alpha where there is any, then the profile. Channels of 16 bits are in
the machine's own byte order.
"""

import errno
import math
from collections.abc import Callable, Mapping

import numpy as np

from upscaled.decoder.wire import Facts, WireError
from upscaled.image.header import MAX_PIXELS
from upscaled.image.pixels import is_deep
from upscaled.image.types import Credit, Image
from upscaled.process.shared_memory import Bytes

_MAX_ICC_BYTES = 2**31
_KINDS: Mapping[int, np.dtype[np.uint8 | np.uint16]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
}


def pack(image: Image) -> tuple[Facts, list[memoryview]]:
    """The facts of an image, and what its memory is to hold."""
    facts: Facts = {
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
    return facts, parts


def unpack(facts: Facts, read: Callable[[int], Bytes]) -> Image:
    """The image that `facts` and the memory speak of; its planes are views of the memory.

    Args:
        read: gives the memory's bytes, of exactly so many.

    Raises:
        WireError: the facts make no sense, or the memory is of another size.
        MemoryError: this process cannot map or copy it.
    """
    height, width = _whole(facts, "height_px", 1), _whole(facts, "width_px", 1)
    icc_bytes = _whole(facts, "icc_bytes", 0)
    has_alpha = facts.get("has_alpha") is True
    pixels = height * width
    if pixels > MAX_PIXELS or icc_bytes > _MAX_ICC_BYTES:
        raise WireError(f"{width} x {height} pixels, a profile of {icc_bytes} bytes")
    kind = _KINDS.get(_whole(facts, "bits", 8))
    if kind is None:
        raise WireError(f"{facts['bits']} bits a channel")
    colour_end = 3 * pixels * kind.itemsize
    alpha_end = colour_end + pixels * kind.itemsize * has_alpha
    try:
        memory = read(alpha_end + icc_bytes)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError("no address space for a picture's pixels") from error  # our own want
        raise WireError(str(error)) from error
    return Image(
        rgb=memory[:colour_end].view(kind).reshape(height, width, 3),
        alpha=memory[colour_end:alpha_end].view(kind).reshape(height, width) if has_alpha else None,
        icc=memory[alpha_end:].tobytes() or None,
        dpi=_read_dpi(facts.get("dpi")),
        credit=_read_credit(facts.get("credit")),
        jpeg_quality=_read_quality(facts.get("jpeg_quality")),
    )


def _whole(facts: Facts, name: str, least: int) -> int:
    value = facts.get(name)
    if type(value) is not int or value < least:
        raise WireError(f"{name} is {value!r}")
    return value


def _read_dpi(value: object) -> tuple[float, float] | None:
    match value:
        case None:
            return None
        case [int() | float() as across, int() | float() as down] if math.isfinite(
            across
        ) and math.isfinite(down):
            return float(across), float(down)
    raise WireError(f"dpi is {value!r}")


def _read_credit(value: object) -> Credit | None:
    match value:
        case None:
            return None
        case [str() as artist, str() as owner]:
            return Credit(artist=artist, copyright=owner)
    raise WireError("credit is no pair of texts")


def _read_quality(value: object) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 100:
        raise WireError(f"jpeg_quality is {value!r}")
    return value
