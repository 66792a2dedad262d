"""Refuse JPEG files that lack coefficients, or whose last scan does not end where it must.

libjpeg never fails over coded bytes that end too early: it warns, Pillow hides the warning, and the
rest of the image is grey or blocks. Here three things are checked, none by looking at pixels
where it can be helped:

- the scans' headers together deliver every coefficient of every channel to its last bit;
- libjpeg-turbo, in the mode that turns warnings into errors, finds nothing to warn of. It decodes
  to an eighth of the size, which costs little beside the entropy decoding;
- the last scan ends with its last coded unit: without its last byte libjpeg warns. A tail of zeros
  or noise is decoded as valid codes, and ends before its bytes do.

The arithmetic decoder reads any number of zeros in place of missing bytes (T.81, D.2.6), so
with it bytes are added and the pixels compared.
"""

import re
from bisect import bisect_left
from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray

from upscaled.image.formats.jpeg.comparison import changes, decode_exposed
from upscaled.image.formats.jpeg.scans import Structure
from upscaled.image.formats.jpeg.segments import BLOCK_PX, DRI, EOI, RST0

_COEFFICIENTS: Final = 64
_MAX_PADDING_BYTES: Final = 16
"""Bytes that some cameras write between the last coded unit and the end marker."""
_PADDING: Final = re.compile(r"(\d+) extraneous bytes before marker 0x(\w+)")
_RESTART: Final = re.compile(rb"\xff[\xd0-\xd7]")
_UNKNOWN_SAMPLING: Final = "Could not determine subsampling level"
_COARSEST: Final = 8
_MAX_FINAL_ZEROS: Final = 3
_MAX_DROPPED_ZEROS: Final = 2
_MAX_FLAT_ZEROS: Final = 8
_FLAT_ROWS: Final = 16
_ZERO_RUN_BYTES: Final = 4
"""A run this long occurs by chance once in 2^32."""
_NOISE: Final = bytes(at * 167 % 255 for at in range(1, 255))
# A decoder of restart intervals goes on only behind its next restart marker, whichever that is.
_MORE: Final = _NOISE + b"".join(bytes((0xFF, RST0 + at % 8)) + _NOISE for at in range(16))


def refuse_missing_pixels(structure: Structure) -> None:
    """Refuse a file of which the decoder would make up pixels. Runs libjpeg: in a decoder only."""
    _refuse_missing_coefficients(structure)
    structure = _refuse_missing_intervals(structure)
    warning = _find_warning(structure)
    padding = _PADDING.search(warning)
    count, marker = (int(padding[1]), int(padding[2], 16)) if padding else (0, EOI[1])
    is_restart = RST0 <= marker < RST0 + 8  # decoding goes on with the next interval
    is_judged = _UNKNOWN_SAMPLING not in warning
    is_padding = padding is not None and (is_restart or count <= _MAX_PADDING_BYTES)
    if warning and is_judged and not is_padding:
        raise ValueError(warning)
    if structure.frame.is_arithmetic:
        _refuse_missing_arithmetic_bytes(structure)
    elif is_judged and marker == EOI[1]:
        _refuse_bytes_left_over(structure)
    else:  # the first warning may hide others
        pixels = decode_exposed(structure)
        if changes(structure.with_more(_MORE), pixels):
            raise ValueError("a scan ends early")
        _refuse_bytes_left_over(structure, pixels)


def _refuse_missing_coefficients(structure: Structure) -> None:
    """Count the bits that scans deliver, high ones first (T.81, G.1.1.1.2)."""
    frame = structure.frame
    whole = [0] * _COEFFICIENTS
    missing = {component.number: [-1] * _COEFFICIENTS for component in frame.components}
    for scan in structure.scans:
        for number in scan.components:
            if number not in missing or scan.last >= _COEFFICIENTS:
                raise ValueError("a scan of a channel or coefficient that is not there")
            if not frame.is_progressive:
                missing[number] = whole
                continue
            for coefficient in range(scan.first, scan.last + 1):
                missing[number][coefficient] = scan.low
    if any(bits != whole for bits in missing.values()):
        raise ValueError("the scans do not deliver every coefficient")


def _refuse_missing_intervals(structure: Structure) -> Structure:
    """Compare every scan's restart markers with its intervals, which they count (T.81, B.2.1).

    Returns the structure without the marker that some programs write behind the last interval.
    """
    interval = 0
    for scan in structure.scans:
        for table in scan.tables:
            if table.marker == DRI:
                interval = int.from_bytes(table.data, "big")
        units = structure.count_units(scan)
        expected = -(-units // interval) - 1 if interval else 0
        count = 0
        for count, found in enumerate(_RESTART.finditer(scan.coded), 1):
            if count > expected + 1 or found[0][1] != RST0 + (count - 1) % 8:
                raise ValueError(f"restart marker {count} of {expected} is {found[0][1]:#x}")
        if count < expected:
            raise ValueError(f"{count} restart markers, not {expected}")
    last = structure.last
    if count > expected and _RESTART.fullmatch(last, len(last) - 2):
        return structure.with_last(last[:-2].rstrip(b"\xff"))
    return structure


def _find_warning(structure: Structure) -> str:
    """Return libjpeg's first warning or its error over the file; "" where it has none."""
    smallest = {"min_height": 1, "min_width": 1, "min_factor": _COARSEST}
    try:
        simplejpeg.decode_jpeg(structure.join(), colorspace="GRAY", strict=True, **smallest)
    except ValueError as error:
        return str(error) or "no JPEG"
    return ""


def _refuse_bytes_left_over(structure: Structure, pixels: NDArray[np.uint8] | None = None) -> None:
    """Raise where more than padding lies between the last coded unit and the end of its scan.

    Raise too where the last units were zeros that no encoder writes.

    pixels: of `decode_exposed`, for a file that libjpeg cannot check.
    """
    left_over = 0
    if not _is_needed(structure, 1, pixels):
        counts = range(2, _MAX_PADDING_BYTES + 2)
        needed = bisect_left(counts, True, key=lambda count: _is_needed(structure, count, pixels))
        left_over = needed + 1
        is_uniform = len(set(structure.last[-left_over:])) == 1
        most = _MAX_PADDING_BYTES if structure.has_end else len(EOI)
        if left_over > most or not is_uniform:
            raise ValueError("bytes are left over behind the last coded unit")
    zeros = len(structure.last) - len(structure.last.rstrip(b"\x00"))
    if zeros - left_over >= _ZERO_RUN_BYTES and not _ends_flat(structure):
        raise ValueError("the last coded units are zeros, and not of one colour")


def _is_needed(structure: Structure, count: int, pixels: NDArray[np.uint8] | None) -> bool:
    """Return whether any of the last `count` coded bytes is part of the image.

    Without them libjpeg warns; where it cannot, other bytes in their place change pixels.
    """
    if pixels is None:
        warning = _find_warning(structure.with_last(_without_last(structure.last, count)))
        return bool(warning) and not _PADDING.search(warning)
    kept = structure.last[: len(structure.last) - count]
    lost = structure.last[len(kept) :]
    if kept.endswith(b"\xff"):  # what followed it would be a marker's name
        kept, lost = kept[:-1], b"\xff" + lost[1:]
    inverted = bytes((byte ^ 0xFF) & 0xFE for byte in lost)
    return changes(structure.with_last(kept + inverted), pixels)


def _ends_flat(structure: Structure) -> bool:
    """Return whether the last blocks of the last scan's channels are of one colour.

    Whole blocks of zeros are, in a sound file: their only code is then the end of a block, for were
    it another, no block would ever end.
    """
    numbers = [component.number for component in structure.frame.components]
    corner = decode_exposed(structure)[:, -BLOCK_PX:, -2 * BLOCK_PX :]
    if len(numbers) > 1:
        corner = corner[..., [numbers.index(each) for each in structure.scans[-1].components]]
    return bool((corner == corner[:, -1:, -1:]).all())


def _without_last(coded: bytes, count: int) -> bytes:
    """Cut off the last coded bytes; a 0xFF goes together with its stuffed zero."""
    for _ in range(count):
        coded = coded[:-2] if coded.endswith(b"\xff\x00") else coded[:-1]
    return coded


def _refuse_missing_arithmetic_bytes(structure: Structure) -> None:
    """Raise where the arithmetic decoder reads past the end, or does not come to it.

    The encoder ends with the number of the fewest bits that still says the image, and may drop
    its final zeros (T.81, D.1.8). So the last byte counts; and two zeros may follow, several only
    in an image that ends without detail, which needs hardly any bits. A dropped zero cannot be
    distinguished from a lost byte.
    """
    shorter = structure.last.rstrip(b"\x00")
    if len(structure.last) - len(shorter) > _MAX_FINAL_ZEROS:
        raise ValueError("zeros behind arithmetic codes")
    pixels = decode_exposed(structure)
    if shorter and not changes(structure.with_last(shorter[:-1]), pixels):
        raise ValueError("bytes are left over behind the last arithmetic code")
    is_flat = bool((pixels[:, -_FLAT_ROWS:] == pixels[:, -1:, -1:]).all())
    zeros = _MAX_FLAT_ZEROS if is_flat else _MAX_DROPPED_ZEROS
    if changes(structure.with_last(structure.last + bytes(zeros) + _MORE), pixels):
        raise ValueError("an arithmetic scan ends early")
