"""JPEG files are decoded however long they are, by each of libjpeg's entropy decoders."""

import struct

import numpy as np
import pytest
from PIL.ImageFile import MAXBLOCK

from tests.service.image.jpeg_samples import KINDS, make_jpeg, read_structure
from upscaled.image.decode import decode_file
from upscaled.image.formats.jpeg.structure import DQT


def lengthen(source: bytes) -> bytes:
    """The file with a table of quantisation so often that 64 KB end midway through its scans."""
    structure = read_structure(source)
    joined = structure.join()
    table = next(each.data[:65] for each in structure.scans[0].tables if each.marker == DQT)
    middle = (joined.index(structure.scans[0].coded) + len(joined)) // 2
    body = table * ((MAXBLOCK - 4 - middle) // len(table))
    return source[:2] + struct.pack(">BBH", 0xFF, DQT, len(body) + 2) + body + source[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_the_border_of_a_piece_that_is_read_does_not_matter(kind: str) -> None:
    source = make_jpeg(kind)
    long = lengthen(source)
    structure = read_structure(long)
    joined = structure.join()
    assert joined.index(structure.scans[0].coded) < MAXBLOCK < len(joined)
    assert np.array_equal(decode_file(long).rgb, decode_file(source).rgb)
