"""JPEG files that were cut are refused, however they are filled up; whole ones are taken."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.service.image.jpeg_samples import (
    EOI,
    KINDS,
    STORED,
    cut,
    make_jpeg,
    photograph,
    product,
    read_structure,
    save_jpeg,
)
from tests.service.image.samples import count_refused, picture
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file
from upscaled.image.formats.jpeg import damage
from upscaled.image.formats.jpeg.comparison import changes, decode_exposed

PLACES = 20
WITH_ZEROS = ("baseline", "optimised", "progressive", "progressive grey", "restarts")


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_gives_half_an_image(kind: str) -> None:
    source = make_jpeg(kind)
    files = [file for _, file in cut(source, PLACES, np.random.default_rng(0))]
    assert count_refused(files, decode_file(source)) > PLACES


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_tail_of_noise_is_accepted_once_in_hundreds_at_most(kind: str) -> None:
    """A tail of a few hundred bytes may be valid codes that end where the file does."""
    source = make_jpeg(kind)
    whole = decode_file(source).rgb
    tried = wrong = 0
    for seed in range(30):
        for name, file in cut(source, PLACES, np.random.default_rng(seed)):
            if "noise" not in name:
                continue
            tried += 1
            try:
                wrong += not np.array_equal(decode_file(file).rgb, whole)
            except MalformedImage:
                continue
    assert wrong <= tried / (50 if kind in STORED else 200)


@pytest.mark.parametrize("kind", KINDS)
def test_every_short_cut_is_refused_or_the_whole_image(kind: str) -> None:
    """An arithmetic decoder may take lost last bytes for an end without detail: T.81, D.1.8."""
    source = make_jpeg(kind)
    whole = decode_file(source).rgb
    seen = len(whole) - 18 if kind.startswith("arithmetic") else len(whole)
    wrong = 0
    for lost in range(1, 40):
        try:
            found = decode_file(source[:-lost]).rgb
        except MalformedImage:
            continue
        assert np.array_equal(found[:seen], whole[:seen]), lost
        wrong += not np.array_equal(found, whole)
    assert wrong <= (8 if kind.startswith("arithmetic") else 0)
    with pytest.raises(MalformedImage):
        decode_file(source[:-40])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"", b"\xff", bytes(2)], ids=["none", "half", "zeros"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_accepted(kind: str, end: bytes) -> None:
    source = make_jpeg(kind)
    assert np.array_equal(decode_file(source[:-2] + end).rgb, decode_file(source).rgb)


@pytest.mark.parametrize("kind", WITH_ZEROS)
@pytest.mark.parametrize("height", range(600, 648, 8))
def test_a_product_on_white_is_accepted_with_and_without_its_end_marker(
    kind: str, height: int
) -> None:
    """Its coded bytes end in thousands of zeros where tables are its own."""
    source = save_jpeg(product(height), kind)
    assert np.array_equal(decode_file(source[:-2]).rgb, decode_file(source).rgb)


def test_white_is_coded_in_zeros() -> None:
    """Otherwise the test above would show nothing."""
    assert save_jpeg(product(3000), "optimised").count(bytes(1000)) > 0


@pytest.mark.parametrize("kind", WITH_ZEROS)
def test_no_cut_of_a_product_on_white_gives_half_an_image(kind: str) -> None:
    source = save_jpeg(product(), kind)
    files = [file for _, file in cut(source, PLACES, np.random.default_rng(1))]
    assert count_refused(files, decode_file(source)) > PLACES


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_the_end_marker_are_ignored(kind: str) -> None:
    """Motion photos carry a video there, MPO files further pictures."""
    source = make_jpeg(kind)
    whole = decode_file(source).rgb
    video = np.random.default_rng(2).bytes(3_000_000)
    assert video.count(b"\xff\xda") > 40
    for behind in (video, source, b"\xff\xda" * 600, bytes(100), EOI):
        assert np.array_equal(decode_file(source + behind).rgb, whole)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("arithmetic")])
@pytest.mark.parametrize("padding", [b"\0", bytes(4), bytes(16), b"\xff" * 9, b"\x55" * 8])
def test_a_few_padding_bytes_before_the_end_marker_are_accepted(kind: str, padding: bytes) -> None:
    source = make_jpeg(kind)
    assert np.array_equal(decode_file(source[:-2] + padding + EOI).rgb, decode_file(source).rgb)


@pytest.mark.parametrize("padding", [bytes(17), bytes(1000), b"\x01\x02"])
def test_more_bytes_or_others_than_padding_are_refused(padding: bytes) -> None:
    source = save_jpeg(photograph())
    with pytest.raises(MalformedImage):
        decode_file(source[:-2] + padding + EOI)


def test_a_stuffed_byte_at_the_end_of_a_scan_is_no_damage() -> None:
    """Padding before a restart marker has the pixels compared, with other bytes at the end."""
    for seed in range(200):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
        source = save_jpeg(noise, "progressive with restarts")
        if read_structure(source).last.endswith(b"\xff\x00"):
            break
    at = source.index(b"\xff\xd0")
    padded = source[:at] + b"\x00" + source[at:]
    assert read_structure(padded).last.endswith(b"\xff\x00")
    assert np.array_equal(decode_file(padded).rgb, decode_file(source).rgb)


def test_one_more_restart_marker_at_the_end_is_accepted() -> None:
    source = save_jpeg(photograph(), "restarts")
    number = sum(source.count(bytes((0xFF, marker))) for marker in range(0xD0, 0xD8))
    behind = source[:-2] + bytes((0xFF, 0xD0 + number % 8)) + EOI
    assert np.array_equal(decode_file(behind).rgb, decode_file(source).rgb)


@pytest.mark.parametrize("marker", [b"\xff\xd3", b""])
def test_a_wrong_or_lost_restart_marker_is_refused(marker: bytes) -> None:
    source = save_jpeg(photograph(), "restarts")
    with pytest.raises(MalformedImage):
        decode_file(source.replace(b"\xff\xd1", marker, 1))


def test_a_progressive_jpeg_without_one_of_its_scans_is_refused() -> None:
    structure = read_structure(save_jpeg(photograph(), "progressive"))
    assert len(structure.scans) > 5
    damage.refuse_missing_pixels(structure)
    for number, scan in enumerate(structure.scans):
        following = structure.scans[number + 1 :]
        if following:  # tables are defined before the scan that is left out
            tables = (*scan.tables, *following[0].tables)
            following = (replace(following[0], tables=tables), *following[1:])
        rest = replace(structure, scans=structure.scans[:number] + following)
        with pytest.raises(ValueError, match=r"every coefficient|Inconsistent progression"):
            damage.refuse_missing_pixels(rest)


@pytest.mark.parametrize("kind", KINDS)
def test_a_marker_among_the_pixels_is_refused(kind: str) -> None:
    source = bytearray(make_jpeg(kind))
    source[-60:-58] = b"\xff\xd9"
    with pytest.raises(MalformedImage):
        decode_file(bytes(source))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in STORED])
def test_a_jpeg_that_is_mid_grey_is_accepted(kind: str) -> None:
    pixels = picture(128, 160)
    pixels[40:] = 128
    for grey in (pixels, np.full_like(pixels, 128)):
        assert decode_file(save_jpeg(grey, kind, quality=95)).rgb.shape == (128, 160, 3)
    source = save_jpeg(pixels, kind, quality=95, comment=b"\xff\xda\xff\xd9")
    assert decode_file(source).rgb[-1, -1].tolist() == [128, 128, 128]


def test_every_jpeg_of_the_quality_images_is_accepted(shared_dir: Path) -> None:
    """Photographs and drawings in several kinds: none is refused."""
    paths = sorted((shared_dir / "images" / "quality").rglob("*.png"))[:6]
    assert paths
    for path in paths:
        with PillowImage.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        for kind in WITH_ZEROS:
            decode_file(save_jpeg(pixels, kind, quality=85))


@pytest.mark.parametrize("kind", ["optimised", "progressive", "grey"])
def test_bits_that_are_no_huffman_code_change_the_exposed_pixels(kind: str) -> None:
    """Of one colour: an optimised table then has a single code, and libjpeg takes all else for it.

    Invalid codes would then look like the end of a block, and the last byte like padding.
    """
    flat = np.full((40, 40, 3), 128, np.uint8)
    structure = read_structure(save_jpeg(flat, kind, optimize=True))
    ones = bytes([structure.last[0] ^ 0xFE]) + structure.last[1:]
    assert changes(structure.with_last(ones), decode_exposed(structure))


@pytest.mark.parametrize("kind", ["baseline", "optimised", "progressive", "grey", "cmyk"])
def test_equal_files_have_equal_exposed_pixels(kind: str) -> None:
    structure = read_structure(save_jpeg(photograph(), kind))
    assert not changes(structure, decode_exposed(structure))
