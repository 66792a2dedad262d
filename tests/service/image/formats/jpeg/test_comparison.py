"""Other coded bytes of a JPEG are seen in its pixels, whatever its tables are."""

import numpy as np
import pytest

from tests.service.image.jpeg_samples import photograph, read_structure, save_jpeg
from upscaled.image.formats.jpeg.comparison import changes, decode_exposed


@pytest.mark.parametrize("kind", ["optimised", "progressive", "grey"])
def test_bits_that_are_no_code_are_seen(kind: str) -> None:
    """Of one colour: an optimised table then has a single code, and libjpeg takes all else for it.

    Invalid codes would then look like the end of a block, and the last byte like padding.
    """
    flat = np.full((40, 40, 3), 128, np.uint8)
    structure = read_structure(save_jpeg(flat, kind, optimize=True))
    ones = bytes([structure.last[0] ^ 0xFE]) + structure.last[1:]
    assert changes(structure.with_last(ones), decode_exposed(structure))


@pytest.mark.parametrize("kind", ["baseline", "optimised", "progressive", "grey", "cmyk"])
def test_the_same_bytes_change_nothing(kind: str) -> None:
    structure = read_structure(save_jpeg(photograph(), kind))
    assert not changes(structure, decode_exposed(structure))
