"""Answers of a decoder process, checked and unpacked by its worker: a frame each way for a file.

    worker                          decoder
    header: what is kept of the
    file's metadata, if anything;
    payload: the encoded file   ->
                                <-  header: `{"refused": ..., "detail": ...}`, or the image's
                                    metadata, with the descriptor of memory that holds its pixels

The memory holds colour, then alpha where there is any, then the colour profile, then the EXIF and
XMP that are kept. Channels of 16 bits are in the machine's own byte order. Nothing that a decoder
sends is used before it has been checked, since a file may control the process.
`upscaled.decoder.child` packs these messages, and loads no pydantic.
"""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, ValidationError

from upscaled.errors import MalformedImage, ResolutionTooHigh, ServiceError, UnsupportedImageFormat
from upscaled.image.formats.table import MAX_PIXELS
from upscaled.image.kept_exif import MAX_EXIF_BYTES
from upscaled.image.kept_xmp import MAX_XMP_BYTES
from upscaled.image.types import Credit, Image, KeptMetadata, MetadataPlan
from upscaled.process.channel import Frame, read_memory

_MAX_ICC_BYTES: Final = 2**31
_REFUSALS: Final[Mapping[str, type[ServiceError]]] = {
    kind.error_code: kind for kind in (MalformedImage, ResolutionTooHigh, UnsupportedImageFormat)
}


class ProtocolError(Exception):
    """The decoder sent an invalid message."""


class _Refusal(BaseModel, strict=True):
    refused: str
    detail: str


class _Metadata(BaseModel, strict=True):
    height_px: PositiveInt
    width_px: PositiveInt
    has_alpha: bool
    bits: Literal[8, 16]
    icc_bytes: Annotated[int, Field(ge=0, le=_MAX_ICC_BYTES)]
    dpi: tuple[FiniteFloat, FiniteFloat] | None
    credit: tuple[str, str] | None
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None
    kept_bytes: (
        tuple[
            Annotated[int, Field(ge=0, le=MAX_EXIF_BYTES)],
            Annotated[int, Field(ge=0, le=MAX_XMP_BYTES)],
        ]
        | None
    )


def pack_plan(plan: MetadataPlan | None) -> bytes:
    return b"" if plan is None else json.dumps(asdict(plan)).encode()


def unpack(reply: Frame) -> Image:
    """Return the image of a reply; its planes are views of the memory. The descriptor is closed.

    Raises:
        MalformedImage, ResolutionTooHigh, UnsupportedImageFormat: the decoder refuses the file.
        ProtocolError: the reply makes no sense, or the memory is of another size.
        MemoryError: this process cannot map or copy the memory, which is not the decoder's fault.
    """
    try:
        if reply.fd is None:
            raise _unpack_refusal(reply.header)
        return _unpack_image(_Metadata.model_validate_json(reply.header), reply.fd)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(f"header: {first['loc']}: {first['msg']}") from None
    finally:
        if reply.fd is not None:
            os.close(reply.fd)


def _unpack_refusal(header: bytes) -> ServiceError:
    refusal = _Refusal.model_validate_json(header)
    kind = _REFUSALS.get(refusal.refused)
    if kind is None:
        raise ProtocolError(f"{refusal.refused!r} is no refusal of a file")
    return kind(detail=refusal.detail)


def _unpack_image(metadata: _Metadata, fd: int) -> Image:
    height, width = metadata.height_px, metadata.width_px
    pixels = height * width
    if pixels > MAX_PIXELS:
        raise ProtocolError(f"{width} x {height} pixels")
    dtype: np.dtype[np.uint8 | np.uint16] = np.dtype(np.uint8 if metadata.bits == 8 else np.uint16)
    colour_end = 3 * pixels * dtype.itemsize
    alpha_end = colour_end + pixels * dtype.itemsize * metadata.has_alpha
    exif_bytes, xmp_bytes = metadata.kept_bytes or (0, 0)
    icc_end = alpha_end + metadata.icc_bytes
    exif_end = icc_end + exif_bytes
    memory = _map(fd, exif_end + xmp_bytes)
    alpha = memory[colour_end:alpha_end].view(dtype) if metadata.has_alpha else None
    return Image(
        rgb=memory[:colour_end].view(dtype).reshape(height, width, 3),
        alpha=None if alpha is None else alpha.reshape(height, width),
        icc=memory[alpha_end:icc_end].tobytes() or None,
        dpi=metadata.dpi,
        credit=Credit(*metadata.credit) if metadata.credit else None,
        jpeg_quality=metadata.jpeg_quality,
        kept=KeptMetadata(memory[icc_end:exif_end].tobytes(), memory[exif_end:].tobytes())
        if metadata.kept_bytes
        else None,
    )


def _map(fd: int, size_bytes: int) -> NDArray[np.uint8]:
    try:
        return read_memory(fd, size_bytes)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError("no address space for an image's pixels") from error
        raise ProtocolError(str(error)) from error
