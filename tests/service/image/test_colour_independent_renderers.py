"""Colours held against programs that share no code with ours: libvips, and OpenCV's own CMYK.

libvips carries a CMYK profile in the public domain ("Chemical proof", by Graeme W. Gill).
"""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.TiffImagePlugin import IFDRational

from tests.service.image.samples import picture, save
from tests.service.upscale.box_engine import core_of
from tests.service.upscale.true_engine import TrueEngine
from upscaled.config import Settings
from upscaled.image import colour
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import ALWAYS_DECODED, OPTIONAL
from upscaled.image.pixels import Pixels

ALL_FORMATS = ALWAYS_DECODED | OPTIONAL
_ADOBE = b"\xff\xee\x00\x0eAdobe"
_TRANSFORM_AT = 11
"""Of the marker's data: which colours the four components are. 0: CMYK, 2: YCCK."""


def cmyk_profile() -> bytes:
    return bytes(pyvips.Operation.call("profile_load", "cmyk"))


def inks(height: int = 64, width: int = 64) -> Pixels:
    """Draw smooth inks, each another way: `[height, width, 4]`, 255 full."""
    rows, columns = np.mgrid[0:height, 0:width] / 64
    planes = [columns, rows, 0.5 + 0.5 * np.sin(6 * columns), 0.6 * (1 - rows) * columns]
    return np.asarray(np.stack(planes, axis=-1) * 255, np.uint8)


def cmyk_jpeg(pixels: Pixels, profile: bytes | None = None) -> bytes:
    image = PillowImage.fromarray(pixels, mode="CMYK")
    return save(image, "JPEG", quality=100, subsampling=0, icc_profile=profile)


def ycck_jpeg(pixels: Pixels, profile: bytes | None = None) -> bytes:
    """Encode inks as Adobe's programs do: C, M and Y as luma and chroma (JFIF's formulas).

    Pillow writes Adobe's inverted values and says CMYK; the marker then says YCCK.
    """
    colour = PillowImage.fromarray(pixels[..., :3]).convert("YCbCr")
    stored = np.dstack([255 - np.asarray(colour), pixels[..., 3]])
    source = bytearray(cmyk_jpeg(stored, profile))
    marker = source.index(_ADOBE)
    source[marker + 4 + _TRANSFORM_AT] = 2
    return bytes(source)


def by_vips(source: bytes, **how: object) -> Pixels:
    """Convert a file to sRGB through its own profile, by libvips."""
    opened = pyvips.Image.new_from_buffer(source, "")
    options = {"intent": "relative", "black_point_compensation": True, "embedded": True, **how}
    return np.asarray(opened.icc_transform("srgb", **options).numpy(), np.uint8)


def distance(one: Pixels, other: Pixels) -> NDArray[np.int64]:
    return np.asarray(np.abs(one.astype(np.int64) - other), np.int64)


@pytest.mark.parametrize("store", [cmyk_jpeg, ycck_jpeg])
def test_cmyk_through_its_profile_is_libvips_image(store: object) -> None:
    assert callable(store)
    source = store(inks(), cmyk_profile())
    image = decode_file(source)
    assert image.icc is None
    assert distance(image.rgb, by_vips(source)).max() <= 2
    plain = decode_file(store(inks())).rgb
    assert distance(image.rgb, plain).mean() > 10  # the profile says something else


def test_cmyk_without_a_profile_is_opencvs_image() -> None:
    source = cmyk_jpeg(inks())
    bgr = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    assert distance(decode_file(source).rgb, np.asarray(bgr[..., ::-1], np.uint8)).max() <= 2


def test_ycck_without_a_profile_is_cmyks_image() -> None:
    rgb = decode_file(ycck_jpeg(inks())).rgb
    assert distance(rgb, decode_file(cmyk_jpeg(inks())).rgb).max() <= 4
    assert distance(rgb, decode_file(cmyk_jpeg(inks())).rgb).mean() < 1


@pytest.mark.parametrize(
    "curve", [colour.Curve(1.0), colour.Curve(1.8), colour.Curve(2.2), colour.SRGB_CURVE]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_through_its_profile_is_libvips_image(kind: str, curve: colour.Curve) -> None:
    """But for the dark of linear light, where libvips is up to 10 levels off the formula."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    source = save(ramp, kind, quality=100, icc_profile=colour.make_grey_profile(curve))
    rgb = decode_file(source).rgb
    assert (rgb[..., :1] == rgb[..., 1:]).all()
    is_compared = ramp > (20 if curve.gamma == 1 else 0)
    assert distance(rgb[..., 0], by_vips(source)[..., 1])[is_compared].max() <= 1


@pytest.mark.parametrize("is_d65", [False, True])
def test_lab_is_libvips_image(is_d65: bool) -> None:
    """Under D50, as TIFF has it without a white; libvips' own short way takes it for D65."""
    rows, columns = np.mgrid[0:32, 0:32].astype(np.float32)
    levels = np.stack([30 + 1.5 * rows, columns - 16, rows - 16], axis=-1)
    lab = pyvips.Image.new_from_array(levels).copy(interpretation="lab")
    source = lab.colourspace("labq").tiffsave_buffer()
    other = lab.icc_export(output_profile="srgb", intent="relative").numpy()
    if is_d65:
        white = {318: (IFDRational(3127, 10_000), IFDRational(3290, 10_000))}
        source = save(PillowImage.open(BytesIO(source)), "TIFF", tiffinfo=white)
        other = lab.colourspace("srgb").numpy()
    rgb = decode_file(source, ALL_FORMATS).rgb
    errors = distance(rgb, np.asarray(other, np.uint8))
    assert errors.mean() < 0.5
    assert errors.max() <= 6  # red near 0, where 8 bits of Lab are far apart


WIDE = {
    "Display P3": colour.make_rgb_profile(colour.DISPLAY_P3, colour.SRGB_CURVE),
    "Rec. 2020": colour.make_rgb_profile(colour.BT2020, colour.BT709_CURVE),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(
    ("kind", "channels", "options"),
    [
        ("JPEG", 3, {"quality": 100, "subsampling": 0}),
        ("PNG", 3, {}),
        ("PNG", 4, {}),
        ("WEBP", 4, {"lossless": True}),
    ],
)
def test_wide_gamut_is_kept_unchanged_and_shown_as_before(
    name: str, kind: str, channels: int, options: dict[str, object]
) -> None:
    """The result carries the very profile, and libvips shows both files alike."""
    pixels = picture(channels=channels)
    if channels == 4:
        pixels[..., 3] |= 1  # nothing is bled
    source = save(pixels, kind, icc_profile=WIDE[name], **options)
    with core_of(TrueEngine(), Settings(jpeg_quality=100)) as core:
        made = core.upscale(source, 2)
    with PillowImage.open(BytesIO(made.data)) as result:
        assert result.info["icc_profile"] == WIDE[name]
    before = by_vips(source).repeat(2, axis=0).repeat(2, axis=1)
    after = by_vips(made.data)
    assert distance(after[..., :3], before[..., :3]).mean() < 1
    unmanaged = pixels.repeat(2, axis=0).repeat(2, axis=1)
    assert distance(after[..., :3], unmanaged[..., :3]).mean() > 5


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("rgb-to-gbr-test.png", marks=pytest.mark.slow),
        "rgb-to-gbr-test.jpg",
        "P3-sRGB-red.jpg",
        pytest.param("R2020-sRGB-green.jpg", marks=pytest.mark.slow),
    ],
)
def test_published_test_images_are_shown_as_before(shared_dir: Path, name: str) -> None:
    """The profile of rgb-to-gbr-test turns its channels round: without it colours are wrong."""
    source = (shared_dir / "images" / "decode" / "icc" / name).read_bytes()
    with PillowImage.open(BytesIO(source)) as opened:
        profile = opened.info["icc_profile"]
    with core_of(TrueEngine(window_px=384), Settings(jpeg_quality=100)) as core:
        made = core.upscale(source, 2)
    with PillowImage.open(BytesIO(made.data)) as result:
        assert result.info["icc_profile"] == profile
    before = by_vips(source)[..., :3].repeat(2, axis=0).repeat(2, axis=1)
    assert distance(by_vips(made.data)[..., :3], before).mean() < 1
