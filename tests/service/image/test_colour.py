"""Conversions through profiles, against the CIE's own formulas; profiles come from test data."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

from upscaled.image.colour import cmyk_to_rgb, grey_to_rgb, keep_rgb_profile
from upscaled.image.decode import decode_file

# sRGB's linear primaries from XYZ under D50 (IEC 61966-2-1 with Bradford adaptation, Lindbloom).
XYZ_D50_TO_LINEAR = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
WHITE_D50 = np.array([0.96422, 1.0, 0.82521])


def lab_to_srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (D50) to sRGB in 0..255, by the formulas of CIE 15 and IEC 61966-2-1."""
    lightness, a, b = lab
    f = np.array([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, 0.0])
    f[2] = f[1] - b / 200
    ratios = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    linear = np.clip(XYZ_D50_TO_LINEAR @ (ratios * WHITE_D50), 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curved * 255)


def lab_of(picture: PillowImage.Image, icc: bytes) -> NDArray[np.float64]:
    """L*a*b* of the first pixel, by the profile alone."""
    to_lab = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(icc)),
        ImageCms.createProfile("LAB"),
        picture.mode,
        "LAB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    converted = ImageCms.applyTransform(picture, to_lab)
    assert converted is not None
    level, a, b = np.asarray(converted)[0, 0].astype(np.float64)
    return np.array([level * 100 / 255, *(value - 256 * (value > 127) for value in (a, b))])


@pytest.mark.parametrize("name", ["cmyk-icc.jpg", "grayscale-icc.jpg"])
def test_a_flat_picture_has_the_colour_its_profile_names(shared_dir: Path, name: str) -> None:
    source = (shared_dir / "images" / "decode" / name).read_bytes()
    with PillowImage.open(BytesIO(source)) as opened:
        expected = lab_to_srgb(lab_of(opened, opened.info["icc_profile"]))
        ignored = np.asarray(opened.convert("RGB"))[0, 0]

    image = decode_file(source)

    assert image.icc is None
    # Black point compensation, which the formulas leave out, darkens this colour by 4 levels.
    assert np.abs(image.rgb[0, 0] - expected).max() < 5
    assert np.abs(image.rgb[0, 0].astype(int) - ignored).max() > 10


def test_paper_is_white_and_full_ink_black_through_a_profile(shared_dir: Path) -> None:
    source = (shared_dir / "images" / "decode" / "cmyk-icc.jpg").read_bytes()
    with PillowImage.open(BytesIO(source)) as opened:
        icc = opened.info["icc_profile"]
    inks = np.array([[[0, 0, 0, 0], [255, 255, 255, 255]]], np.uint8)

    paper, black = cmyk_to_rgb(PillowImage.fromarray(inks, mode="CMYK"), icc)[0]

    assert (paper >= 254).all()
    assert (black <= 2).all()


def test_every_grey_stays_neutral_through_a_profile(shared_dir: Path) -> None:
    source = (shared_dir / "images" / "decode" / "grayscale-icc.jpg").read_bytes()
    with PillowImage.open(BytesIO(source)) as opened:
        icc = opened.info["icc_profile"]
    levels = np.arange(256, dtype=np.uint8)[None, :]

    rgb = grey_to_rgb(levels, icc)[0].astype(int)

    assert (rgb == rgb[:, :1]).all()
    assert (np.diff(rgb[:, 0]) >= 0).all()
    assert rgb[0, 0] <= 1
    assert rgb[255, 0] == 255


def test_wide_gamut_pixels_are_not_touched_and_keep_their_profile(shared_dir: Path) -> None:
    names = ("rgb-to-gbr-test.png", "P3-sRGB-blue.png", "R2020-sRGB-green.jpg")
    for name in names:
        source = (shared_dir / "images" / "decode" / "icc" / name).read_bytes()
        with PillowImage.open(BytesIO(source)) as opened:
            image = decode_file(source)
            assert image.icc == opened.info["icc_profile"], name
            assert np.array_equal(image.rgb, np.asarray(opened.convert("RGB"))), name


def test_a_profile_for_another_kind_of_pixels_is_not_kept(shared_dir: Path) -> None:
    for name in ("cmyk-icc.jpg", "grayscale-icc.jpg"):
        with PillowImage.open(shared_dir / "images" / "decode" / name) as opened:
            assert keep_rgb_profile(opened.info["icc_profile"]) is None


def test_no_profile_is_none() -> None:
    assert keep_rgb_profile(None) is None
    assert keep_rgb_profile(b"") is None
