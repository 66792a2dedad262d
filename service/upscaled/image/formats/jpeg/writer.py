"""A JPEG file from strips that were compressed each on its own.

A strip's first block is coded without regard to the one before it, as the block behind a restart
marker is (ITU-T T.81, F.1.1.5.1 and E.1.4). So the coded strips, with restart markers between
them and the restart interval declared, are the picture: baseline, one scan, the very pixels that
coding it in one piece gives.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import cv2
import numpy as np

from upscaled.errors import InternalError
from upscaled.image.metadata import write_credit
from upscaled.image.types import Image

STRIP_PX: Final = 64
"""Rows of a strip: 65,535 blocks, the longest restart interval, are 65,528 pixels wide then."""
_BLOCK_PX: Final = 8
_SOI, _EOI, _SOS, _DRI = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xDD
_DQT, _DHT, _SOF0 = 0xDB, 0xC4, 0xC0
_APP0, _APP1, _APP2 = 0xE0, 0xE1, 0xE2
_RST0: Final = 0xD0
_MOST_DATA_BYTES: Final = 65_533
_ICC_HEAD: Final = b"ICC_PROFILE\x00"
_ICC_PIECE_BYTES: Final = _MOST_DATA_BYTES - len(_ICC_HEAD) - 2
_PARAMETERS: Final = (
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    cv2.IMWRITE_JPEG_QUALITY,
)


class JpegWriter:
    """Writes an opaque image of 8 bits a channel, without chroma subsampling."""

    strip_px: Final = STRIP_PX

    def __init__(self, image: Image, quality: int) -> None:
        """`image` may hold unfinished pixels. Quality: libjpeg's, 1 to 100."""
        self._image = image
        self._parameters = (*_PARAMETERS, quality)

    def compress(self, top: int, bottom: int) -> bytes:
        """Compress rows as a JPEG file of their own; other threads of Python run meanwhile."""
        rgb = self._image.rgb[top:bottom].view(np.uint8)
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        is_done, encoded = cv2.imencode(".jpg", bgr, self._parameters)
        if not is_done:
            raise InternalError(detail=f"JPEG strip of {rgb.shape} could not be encoded")
        return encoded.tobytes()

    def join(self, strips: Sequence[bytes]) -> bytes:
        """One file from all strips; of what their own heads say only the coding goes in."""
        image = self._image
        exif = write_credit(image.credit) if image.credit else None
        segments = dict[int, bytes]()
        for marker, data in _segments(strips[0]):
            segments[marker] = segments.get(marker, b"") + data
        frame = bytearray(segments[_SOF0])
        frame[1:3] = struct.pack(">H", image.height_px)
        blocks = -(-image.width_px // _BLOCK_PX) * (STRIP_PX // _BLOCK_PX)
        parts: list[bytes | memoryview] = [
            _SOI,
            _segment(_APP0, _jfif(image.dpi)),
            _segment(_APP1, b"Exif\x00\x00" + exif) if exif else b"",
            *(_segment(_APP2, piece) for piece in _icc_pieces(image.icc or b"")),
            _segment(_DQT, segments[_DQT]),
            _segment(_SOF0, bytes(frame)),
            _segment(_DHT, segments[_DHT]),
            _segment(_DRI, struct.pack(">H", blocks)) if len(strips) > 1 else b"",
            _segment(_SOS, segments[_SOS]),
        ]
        for number, strip in enumerate(strips):
            if number:
                parts.append(bytes((0xFF, _RST0 + (number - 1) % 8)))
            parts.append(memoryview(strip)[_scan_start(strip) : -len(_EOI)])
        return b"".join((*parts, _EOI))


def _segments(strip: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, data) of a file's head, its scan's header last."""
    at = len(_SOI)
    marker = 0
    while marker != _SOS:
        marker = strip[at + 1]
        length = int.from_bytes(strip[at + 2 : at + 4], "big")
        yield marker, strip[at + 4 : at + 2 + length]
        at += 2 + length


def _scan_start(strip: bytes) -> int:
    return len(_SOI) + sum(4 + len(data) for _, data in _segments(strip))


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jfif(dpi: tuple[float, float] | None) -> bytes:
    """JFIF 1.02: the density in pixels an inch, or the pixel's shape alone (square)."""
    unit, across, down = (1, *map(_whole, dpi)) if dpi else (0, 1, 1)
    return b"JFIF\x00\x01\x02" + struct.pack(">BHHBB", unit, across, down, 0, 0)


def _whole(density: float) -> int:
    return min(65_535, max(1, round(density)))


def _icc_pieces(icc: bytes) -> Iterator[bytes]:
    """ICC.1:2022, B.4: the profile cut into numbered pieces."""
    count = -(-len(icc) // _ICC_PIECE_BYTES)
    for number in range(count):
        start = number * _ICC_PIECE_BYTES
        piece = icc[start : start + _ICC_PIECE_BYTES]
        yield _ICC_HEAD + bytes((number + 1, count)) + piece
