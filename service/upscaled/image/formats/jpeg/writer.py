"""Write a JPEG file of strips that are compressed each on its own.

A strip's first block is coded without regard to the one before it, as the block behind a restart
marker is (ITU-T T.81, F.1.1.5.1 and E.1.4). So the coded strips, with restart markers between
them and the restart interval declared, are the image: baseline, one scan, the very pixels that
coding it in one piece gives.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled.errors import InternalError
from upscaled.image.formats.jpeg import segments
from upscaled.image.formats.jpeg.segments import (
    LeadingSegments,
    make_segment,
    read_leading_segments,
)
from upscaled.image.metadata import exif_of_result
from upscaled.image.types import Image

_MOST_DATA_BYTES: Final = 65_533
_MAX_DENSITY: Final = 65_535
_ICC_PIECE_BYTES: Final = _MOST_DATA_BYTES - len(segments.ICC_HEAD) - 2
_PARAMETERS: Final = (
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    cv2.IMWRITE_JPEG_QUALITY,
)


class JpegWriter:
    """Writes an image of 8 bits a channel, without chroma subsampling.

    What is transparent is laid on white: JPEG has no alpha.
    """

    strip_px: Final = 64
    """Rows of a strip: 65,535 blocks, the longest restart interval, are 65,528 pixels wide then."""

    def __init__(self, image: Image, quality: int) -> None:
        """`image` may hold unfinished pixels. Quality: libjpeg's, 1 to 100."""
        self._image = image
        self._parameters = (*_PARAMETERS, quality)

    def compress(self, top: int, bottom: int) -> bytes:
        """Compress rows as a JPEG file of their own; other threads of Python run meanwhile."""
        rgb = self._image.rgb[top:bottom].view(np.uint8)
        if self._image.alpha is not None:
            rgb = _lay_on_white(rgb, self._image.alpha[top:bottom, :, None].view(np.uint8))
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        is_done, encoded = cv2.imencode(".jpg", bgr, self._parameters)
        if not is_done:
            raise InternalError(detail=f"JPEG strip of {rgb.shape} could not be encoded")
        return encoded.tobytes()

    def join(self, strips: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the file piece by piece; only the coded data of each strip are used.

        The headers of all strips are equally long: they differ in the height alone.
        """
        before, scans_at = b"", 0
        for number, strip in enumerate(strips):
            if number == 0:
                leading = read_leading_segments(strip)
                before, scans_at = self._head(leading), leading.scans_at
            yield before + strip[scans_at : -len(segments.EOI)]
            before = bytes((0xFF, segments.RST0 + number % 8))
        yield segments.EOI

    def _head(self, leading: LeadingSegments) -> bytes:
        """Return what stands before the coded data, with the tables of the first strip."""
        image = self._image
        exif = exif_of_result(image)
        xmp = image.kept.xmp if image.kept else b""
        frame = leading.frame.with_size(image.width_px, image.height_px)
        tables = {
            marker: b"".join(each.data for each in leading.tables if each.marker == marker)
            for marker in (segments.DQT, segments.DHT)
        }
        blocks = -(-image.width_px // segments.BLOCK_PX) * (self.strip_px // segments.BLOCK_PX)
        is_cut = image.height_px > self.strip_px
        parts = [
            segments.SOI,
            make_segment(segments.APP0, _jfif(image.dpi)),
            make_segment(segments.APP1, segments.EXIF_HEAD + exif) if exif else b"",
            make_segment(segments.APP1, segments.XMP_HEAD + xmp) if xmp else b"",
            *(make_segment(segments.APP2, piece) for piece in _icc_pieces(image.icc or b"")),
            make_segment(segments.DQT, tables[segments.DQT]),
            make_segment(frame.marker, frame.data),
            make_segment(segments.DHT, tables[segments.DHT]),
            make_segment(segments.DRI, struct.pack(">H", blocks)) if is_cut else b"",
            make_segment(segments.SOS, leading.scan_header),
        ]
        return b"".join(parts)


def _lay_on_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend as browsers do, in the levels as they are stored."""
    darker = (255 - rgb).astype(np.uint16) * alpha
    return np.asarray(255 - (darker + 127) // 255, np.uint8)


def _jfif(dpi: tuple[float, float] | None) -> bytes:
    """Make the data of JFIF 1.02: the density in pixels an inch, or square pixels alone."""
    unit, across, down = 0, 1, 1
    if dpi:
        unit = 1
        across, down = (min(_MAX_DENSITY, max(1, round(side))) for side in dpi)
    return b"JFIF\x00\x01\x02" + struct.pack(">BHHBB", unit, across, down, 0, 0)


def _icc_pieces(icc: bytes) -> Iterator[bytes]:
    """Cut a profile into numbered pieces (ICC.1:2022, B.4)."""
    count = -(-len(icc) // _ICC_PIECE_BYTES)
    for number in range(count):
        start = number * _ICC_PIECE_BYTES
        piece = icc[start : start + _ICC_PIECE_BYTES]
        yield segments.ICC_HEAD + bytes((number + 1, count)) + piece
