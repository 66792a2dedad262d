import zlib

import numpy as np
import pytest

from tests.service.image.samples import (
    CHANNELS,
    GREY,
    GREY_ALPHA,
    PALETTE,
    PNG_KINDS,
    RGB,
    RGBA,
    chunk,
    deep_samples,
    have_equal_pixels,
    picture,
    png,
    save,
    save_frames,
    srgb_profile,
)
from upscaled.image.decode import decode_file
from upscaled.image.types import Image


def stretched(samples: np.ndarray, bits: int) -> np.ndarray:
    """Round to the nearest of 256 levels in floating point; 16 bits are kept."""
    if bits == 16:
        return samples
    return np.rint(samples.astype(np.float64) * 255 / ((1 << bits) - 1)).astype(np.uint8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_every_depth_is_stretched_to_the_full_range(bits: int) -> None:
    samples = deep_samples(1, bits)
    image = decode_file(png(samples, bits, GREY))
    assert have_equal_pixels(image, Image(stretched(samples, bits).repeat(3, axis=2)))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_level_counts_in_the_files_own_depth(bits: int) -> None:
    samples = deep_samples(1, bits)
    level = (1 << bits) - 1
    image = decode_file(png(samples, bits, GREY, before=chunk(b"tRNS", level.to_bytes(2, "big"))))
    assert image.alpha is not None
    assert np.array_equal(image.alpha == 0, samples[..., 0] == level)
    assert set(np.unique(image.alpha)) == {0, 65535 if bits == 16 else 255}
    assert image.alpha.dtype == image.rgb.dtype
    assert np.array_equal(image.rgb, stretched(samples, bits).repeat(3, axis=2))


@pytest.mark.parametrize(("colour", "channels"), [(RGB, 3), (RGBA, 4), (GREY_ALPHA, 2)])
@pytest.mark.parametrize("bits", [8, 16])
def test_colour_and_alpha_are_decoded_to_the_level(colour: int, channels: int, bits: int) -> None:
    samples = deep_samples(channels, bits, 60, 70)
    expected = stretched(samples, bits)
    image = decode_file(png(samples, bits, colour))
    colours = expected[..., :1].repeat(3, axis=2) if channels == 2 else expected[..., :3]
    alpha = None if channels == 3 else expected[..., -1]
    assert have_equal_pixels(image, Image(colours, alpha))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_key_makes_only_its_exact_colour_transparent(bits: int) -> None:
    """A pixel one step away is opaque, though in 16 bits both look the same."""
    samples = deep_samples(3, bits)
    samples[3, 4] = samples[3, 5] = (200, 100, 50)
    samples[3, 5, 2] += 1
    key = b"".join(value.to_bytes(2, "big") for value in (200, 100, 50))
    image = decode_file(png(samples, bits, RGB, before=chunk(b"tRNS", key)))
    assert image.alpha is not None
    assert image.alpha[3, 4] == 0
    assert image.alpha[3, 5] == np.iinfo(image.alpha.dtype).max
    assert (image.alpha == 0).sum() == 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_colours_and_their_alpha_are_looked_up(bits: int) -> None:
    indices = deep_samples(1, bits)
    palette = np.random.default_rng(5).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
    alphas = np.array([0, 128], np.uint8)
    plte = chunk(b"PLTE", palette.tobytes())
    trns = chunk(b"tRNS", alphas.tobytes())
    all_alphas = np.full(1 << bits, 255, np.uint8)
    all_alphas[:2] = alphas
    for before, alpha in ((plte, None), (plte + trns, all_alphas[indices[..., 0]])):
        image = decode_file(png(indices, bits, PALETTE, before=before))
        assert have_equal_pixels(image, Image(palette[indices[..., 0]], alpha))


def test_an_opaque_palette_file_with_transparency_entries_still_has_alpha() -> None:
    source = png(
        np.ones((4, 4, 1), np.uint16),
        8,
        PALETTE,
        before=chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x00"),
    )
    alpha = decode_file(source).alpha
    assert alpha is not None
    assert (alpha == 255).all()


@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
@pytest.mark.parametrize("size", [(20, 30), (8, 8), (3, 1), (1, 5)])
def test_an_interlaced_file_has_the_pixels_of_the_plain_one(
    colour: int, bits: int, size: tuple[int, int]
) -> None:
    """Of any kind, with transparency given by a level, a colour or a palette's entry too."""
    samples = deep_samples(CHANNELS[colour], bits, *size)
    palette = np.random.default_rng(5).integers(0, 256, (1 << bits, 3), np.uint8).tobytes()
    plte = chunk(b"PLTE", palette) if colour == PALETTE else b""
    key = {GREY: b"\x00\x01", RGB: b"\x00\x01" * 3, PALETTE: b"\x07"}.get(colour)
    for before in (plte, plte + chunk(b"tRNS", key)) if key else (plte,):
        plain = decode_file(png(samples, bits, colour, before=before))
        image = decode_file(png(samples, bits, colour, before=before, interlaced=True))
        assert have_equal_pixels(image, plain)


@pytest.mark.parametrize("profile", [b"junk", b"\x00" * 200, None])
def test_a_broken_profile_is_dropped_and_the_image_kept(profile: bytes | None) -> None:
    profile = srgb_profile()[:300] if profile is None else profile
    image = decode_file(save(picture(), "PNG", icc_profile=profile))
    assert image.icc is None
    assert np.array_equal(image.rgb, picture())


@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_profile_that_is_not_for_grey_leaves_grey_as_it_is(colour: int, bits: int) -> None:
    samples = deep_samples(1 if colour == GREY else 2, bits)
    iccp = b"x\x00\x00" + zlib.compress(srgb_profile())
    image = decode_file(png(samples, bits, colour, before=chunk(b"iCCP", iccp)))
    assert image.icc is None
    assert np.array_equal(image.rgb[..., 0], stretched(samples, bits)[..., 0])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_decoded(kind: str) -> None:
    source = save_frames(kind, picture(), 255 - picture(), lossless=True)
    assert np.array_equal(decode_file(source).rgb, picture())


def animation(frame_count: int) -> bytes:
    """Make an animation control chunk: that many frames, for ever."""
    return chunk(b"acTL", frame_count.to_bytes(4, "big") + bytes(4))


@pytest.mark.parametrize("frame_count", [0, 1, 2**31])
def test_a_senseless_animation_is_ignored(frame_count: int) -> None:
    samples = deep_samples(3, 16)
    extras = animation(frame_count) * 2 + chunk(b"fcTL", bytes(26))
    image = decode_file(png(samples, 16, RGB, before=extras, after=chunk(b"fdAT", bytes(40))))
    assert np.array_equal(image.rgb, stretched(samples, 16))


def test_the_first_of_several_images_in_one_jpeg_is_decoded() -> None:
    source = save_frames("MPO", picture(), 255 - picture())
    difference = np.abs(decode_file(source).rgb.astype(int) - picture())
    assert difference.mean() < 4


@pytest.mark.parametrize("interlaced", [False, True])
def test_pixels_have_8_bits_and_are_contiguous(interlaced: bool) -> None:
    image = decode_file(save(picture(channels=4), "PNG", interlace=interlaced))
    assert image.alpha is not None
    for plane in (image.rgb, image.alpha):
        assert plane.dtype == np.uint8
        assert plane.flags.c_contiguous
