"""Conversions through profiles, which come from test data."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from upscaled.image.colour import cmyk_to_rgb, grey_to_rgb, keep_rgb_profile
from upscaled.image.decode import decode_file


def test_paper_is_white_and_full_ink_black_through_a_profile(shared_dir: Path) -> None:
    source = (shared_dir / "images" / "decode" / "cmyk-icc.jpg").read_bytes()
    with PillowImage.open(BytesIO(source)) as opened:
        icc = opened.info["icc_profile"]
    inks = np.array([[[0, 0, 0, 0], [255, 255, 255, 255]]], np.uint8)
    paper, black = cmyk_to_rgb(PillowImage.fromarray(inks, mode="CMYK"), icc)[0]
    assert (paper >= 254).all()
    assert (black <= 2).all()


def test_every_grey_is_neutral_through_a_profile(shared_dir: Path) -> None:
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


def test_a_missing_profile_is_not_kept() -> None:
    assert keep_rgb_profile(None) is None
    assert keep_rgb_profile(b"") is None
