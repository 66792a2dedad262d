"""PNG files that are written strip by strip, and read again by Pillow."""

import io
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.image.formats.png import writer
from upscaled.image.formats.png.structure import isal_zlib
from upscaled.image.formats.png.writer import PngWriter, combine_adler32
from upscaled.image.types import Image


def pixels(height_px: int, channels: int) -> NDArray[np.uint8]:
    """Return rows of soft colours above rows of noise, which no compressor makes shorter."""
    soft = np.indices((height_px, 97)).sum(0)[..., None] // 3 + np.arange(channels)
    noise = np.random.default_rng(1).integers(0, 256, soft.shape)
    rows = np.arange(height_px)[:, None, None]
    mixed: NDArray[np.uint8] = np.where(rows < 70, soft, noise).astype(np.uint8)
    return mixed


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("channels", [3, 4])
def test_strips_make_one_file_by_either_compressor(
    monkeypatch: pytest.MonkeyPatch, is_fast: bool, channels: int
) -> None:
    if not is_fast:
        monkeypatch.setattr(writer, "isal_zlib", None)
        monkeypatch.setattr(writer, "adler32", zlib.adler32)
    elif isal_zlib is None:
        pytest.skip("isal is not installed")
    whole = pixels(200, channels)
    alpha = whole[..., 3].copy() if channels == 4 else None
    png = PngWriter(Image(whole[..., :3].copy(), alpha))

    strips = [png.compress(top, min(top + 64, 200)) for top in range(0, 200, 64)]
    file = b"".join(png.join(strips))

    with PillowImage.open(io.BytesIO(file)) as read:
        assert np.array_equal(np.asarray(read), whole)


def test_strips_are_in_the_file_as_they_were_compressed() -> None:
    """So that nothing but a copy of each is left to do once the last pixel is there."""
    whole = pixels(150, 3)
    png = PngWriter(Image(whole))
    strips = [png.compress(0, 64), png.compress(64, 128), png.compress(128, 150)]

    file = b"".join(png.join(strips))

    chunks = b"".join(strip[:-12] for strip in strips)
    assert chunks[4:8] == b"IDAT"
    assert chunks in file


def test_the_checksum_of_pieces_is_that_of_the_whole() -> None:
    data = np.random.default_rng(2).bytes(100_000)
    for cut in (0, 1, 70_000, len(data)):
        first, second = data[:cut], data[cut:]
        joined = combine_adler32(zlib.adler32(first), zlib.adler32(second), len(second))
        assert joined == zlib.adler32(data)
