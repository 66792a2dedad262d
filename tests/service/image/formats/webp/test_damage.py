"""Zeros at the end of a WebP picture's data: sound ones of even areas, and lost ones."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.samples import count_refused, picture, save, with_zero_tails
from tests.service.image.webp_samples import chunks_of, extended, frame, webp
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file
from upscaled.image.formats.webp.damage import is_damaged
from upscaled.image.formats.webp.structure import read_first_image
from upscaled.image.formats.webp.vp8 import find_partitions, join_partitions

IMAGE_DIR = Path(__file__).parents[2]
FOUR_PARTITIONS = (IMAGE_DIR / "webps" / "four_partitions.webp").read_bytes()
"""80 x 96 px of noise on a gradient, by libwebp."""


def even(height: int, width: int) -> NDArray[np.uint8]:
    """Draw a product on white, black below, which is coded in zeros."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[: height // 4, : width // 4] = noise(height // 4, width // 4)
    pixels[height // 2 :] = 0
    return pixels


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    chance = np.random.default_rng(height)
    return chance.integers(0, 256, (height, width, channels), dtype=np.uint8)


def zeros_at_end(data: bytes | memoryview) -> int:
    return len(data) - len(bytes(data).rstrip(b"\0"))


KINDS: dict[str, dict[str, object]] = {
    "lossy": {},
    "coarse": {"quality": 5, "method": 0},
    "lossless": {"lossless": True},
    "fast lossless": {"lossless": True, "quality": 0, "method": 0},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_zeros_of_even_areas_are_accepted(kind: str) -> None:
    most = 0
    for height, width in ((64, 64), (65, 127), (300, 400), (1200, 900)):
        cut_out = np.dstack([even(height, width), np.full((height, width), 255, np.uint8)])
        cut_out[height // 3 :, :, 3] = 0
        for pixels in (even(height, width), cut_out, np.zeros((height, width, 3), np.uint8)):
            source = save(pixels, "WEBP", **KINDS[kind])
            assert decode_file(source).rgb.shape[:2] == (height, width)
            most = max(most, zeros_at_end(read_first_image(source).bitstream))
    if kind in ("lossy", "fast lossless"):
        assert most > 100  # so they have been looked into


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_zeros_behind_whole_data_are_padding(kind: str) -> None:
    source = save(picture(64, 64), "WEBP", **KINDS[kind])
    ((name, data),) = chunks_of(source).items()
    padded = webp((name, data + bytes(500)))
    assert np.array_equal(decode_file(padded).rgb, decode_file(source).rgb)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_lost_noise_is_refused_at_every_cut(kind: str, channels: int) -> None:
    """Of lossless noise all codes are of one length, so that every byte is as good as another."""
    pixels = noise(96, 80, channels)
    source = save(np.repeat(pixels, 3, axis=2) if channels == 1 else pixels, "WEBP", **KINDS[kind])
    whole = decode_file(source)
    assert whole.rgb.shape == (96, 80, 3)
    assert count_refused(with_zero_tails(source), whole) == 20


def test_lost_data_of_a_frame_smaller_than_its_canvas_are_refused() -> None:
    source = save(noise(96, 80), "WEBP", lossless=True)
    ((name, data),) = chunks_of(source).items()
    canvas, start = extended(400, 300, 0x02), (b"ANIM", bytes(6))
    lost = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    assert decode_file(webp(canvas, start, frame(0, 0, 80, 96, (name, data)))).rgb.shape == (
        300,
        400,
        3,
    )
    with pytest.raises(MalformedImage):
        decode_file(webp(canvas, start, frame(0, 0, 80, 96, (name, lost))))


def test_lost_alpha_is_refused() -> None:
    alpha = noise(96, 80, 1) // 128 * 200
    chunks = chunks_of(save(np.dstack([picture(96, 80), alpha]), "WEBP", exact=True))
    coded = chunks[b"ALPH"]
    assert len(coded) > 500
    for lost in with_zero_tails(coded):
        with pytest.raises(MalformedImage):
            decode_file(webp(extended(80, 96, 0x10), (b"ALPH", lost), (b"VP8 ", chunks[b"VP8 "])))


def test_the_partitions_of_a_frame_are_found_and_joined_again() -> None:
    frames = [read_first_image(save(picture(64, 64), "WEBP", quality=q)).bitstream for q in (1, 80)]
    for whole in frames:
        sizes_at, partitions = find_partitions(whole)
        assert len(partitions) == 1
        assert join_partitions(whole, sizes_at, partitions) == whole
    whole = read_first_image(FOUR_PARTITIONS).bitstream
    sizes_at, partitions = find_partitions(whole)
    assert len(partitions) == 4
    assert all(len(each) > 20 for each in partitions)
    assert sizes_at + 3 * 3 + sum(map(len, partitions)) == len(whole)
    assert join_partitions(whole, sizes_at, partitions) == whole


def test_lost_data_of_any_partition_are_refused() -> None:
    assert not is_damaged(read_first_image(FOUR_PARTITIONS))
    cut = with_zero_tails(FOUR_PARTITIONS)
    assert count_refused(cut, decode_file(FOUR_PARTITIONS)) == len(cut)


def test_a_frame_without_its_partitions_is_refused() -> None:
    whole = read_first_image(FOUR_PARTITIONS).bitstream
    sizes_at, _ = find_partitions(whole)
    for length in (0, 5, 10, 12, sizes_at, sizes_at + 8):
        with pytest.raises((ValueError, IndexError)):
            find_partitions(whole[:length])
