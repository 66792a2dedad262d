"""AVIF, BMP, HEIC and TIFF: recognised, and where they are enabled, decoded as other formats."""

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms
from PIL.BmpImagePlugin import BmpImageFile

from tests.service.image.iso_samples import encode_heic
from tests.service.image.samples import (
    count_refused,
    decode_checked,
    exif_with_orientation,
    picture,
    save,
    stored_for,
)
from upscaled.config import Settings
from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.decode import decode, decode_file
from upscaled.image.formats.table import ALWAYS_DECODED, OPTIONAL, read_header, sniff

ALL = ALWAYS_DECODED | OPTIONAL
TURNED = [kind for kind in sorted(ALL) if kind != "BMP"]  # BMP knows no orientation
LOSSY = 6.0

pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")


def encode(pixels: NDArray[np.uint8], kind: str, orientation: int = 1) -> bytes:
    exif = exif_with_orientation(orientation)
    if kind == "HEIC":
        return encode_heic(pixels, exif=exif)  # which becomes `irot` and `imir`
    if kind == "TIFF":
        return save(pixels, kind, tiffinfo={274: orientation})
    options = {"quality": 100} if kind in ("AVIF", "JPEG") else {"lossless": True}
    return save(pixels, kind, **options, **({"exif": exif} if orientation != 1 else {}))


def test_settings_enable_every_optional_format() -> None:
    assert Settings().formats == ALWAYS_DECODED
    assert Settings(extra_formats=("avif", "bmp", "heic", "tiff")).formats == ALL


@pytest.mark.parametrize("kind", sorted(OPTIONAL))
def test_an_optional_format_is_refused_unless_it_is_enabled(kind: str) -> None:
    source = encode(picture(), kind)
    for others in (ALWAYS_DECODED, ALL - {kind}):
        for read in (read_header, decode_file):
            with pytest.raises(UnsupportedImageFormat) as refusal:
                read(source, others)
            assert refusal.value.public_text == f"Unsupported image format: {kind}"
    assert read_header(source, {kind}).format == kind


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_and_sizes_are_upright(kind: str, orientation: int) -> None:
    upright = picture(72, 96)
    source = encode(stored_for(upright, orientation), kind, orientation)
    image = decode_checked(source, ALL)
    assert image.rgb.shape == upright.shape
    is_lossless = kind in ("PNG", "TIFF", "WEBP")
    assert np.abs(image.rgb.astype(int) - upright).mean() <= (0 if is_lossless else LOSSY)


@pytest.mark.parametrize("kind", sorted(ALL - {"JPEG", "BMP"}))
def test_alpha_is_reported_and_kept(kind: str) -> None:
    pixels = picture(72, 96, channels=4)
    source = encode(pixels, kind)
    image = decode_checked(source, ALL)
    assert image.alpha is not None
    assert np.abs(image.alpha.astype(int) - pixels[..., 3]).mean() < LOSSY


@pytest.mark.parametrize("kind", sorted(ALL))
def test_every_cut_is_refused_or_the_whole_image(kind: str) -> None:
    """Never one that is grey from the middle on."""
    source = encode(picture(64, 64), kind)
    cut = (source[:length] for length in range(0, len(source), max(1, len(source) // 150)))
    assert count_refused(cut, decode_file(source, ALL), ALL) > 100


def test_an_image_of_a_general_brand_is_sniffed_by_its_other_brands() -> None:
    def ftyp(*brands: bytes) -> bytes:
        body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
        return (len(body) + 4).to_bytes(4, "big") + body

    assert sniff(ftyp(b"mif1", b"miaf", b"avif")) == "AVIF"
    assert sniff(ftyp(b"mif1", b"miaf", b"heic")) == "HEIC"
    assert sniff(ftyp(b"mif1")) == "HEIC"
    with_many_brands = ftyp(b"avif", *[b"mif1"] * 60)
    assert with_many_brands[:4] == b"\x00\x00\x01\x00"  # as an icon begins
    assert sniff(with_many_brands) == "AVIF"
    assert sniff(ftyp(b"isom", b"mp42")) is None


def test_deep_grey_tiff_is_rounded_and_not_cut() -> None:
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).round().astype(np.uint16)
    image = decode_file(save(levels, "TIFF"), {"TIFF"})
    assert np.array_equal(image.rgb[..., 1], np.rint(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("photometric", [0, 1])
def test_deep_grey_tiff_may_have_white_at_0(photometric: int) -> None:
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    source = save(levels, "TIFF")
    stored = struct.pack("<HHIH", 262, 3, 1, 1)
    assert source.count(stored) == 1
    image = decode_file(
        source.replace(stored, struct.pack("<HHIH", 262, 3, 1, photometric)), {"TIFF"}
    )
    expected = levels if photometric else 65_535 - levels
    assert np.abs(image.rgb[..., 0] * 257.0 - expected).max() <= 129


def test_grey_tiff_that_was_multiplied_by_its_alpha_is_divided_again() -> None:
    """ExtraSamples 1, associated alpha (TIFF 6.0, section 18)."""
    stored = np.array([[[60, 120], [128, 255], [0, 0]]], np.uint8)
    unassociated, associated = (struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1))
    source = save(PillowImage.fromarray(stored, "LA"), "TIFF")
    assert source.count(unassociated) == 1
    image = decode_checked(source.replace(unassociated, associated), {"TIFF"})
    assert image.alpha is not None
    assert image.alpha.tolist() == [[120, 255, 0]]
    assert image.rgb[0, :, 0].tolist() == [60 * 255 // 120, 128, 0]


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_colours_that_were_multiplied_by_their_alpha_are_divided_again(kind: str) -> None:
    """The reference `prem` from colour to alpha (ISO/IEC 23000-22, 7.3.5.2)."""
    pixels = picture(64, 96, channels=4)
    pixels[..., 3] |= 128
    if kind == "AVIF":
        options = {"subsampling": "4:4:4", "alpha_premultiplied": True}
        source = save(pixels, kind, quality=100, **options)
    else:
        file = BytesIO()
        multiplied = PillowImage.fromarray(pixels).convert("RGBa")
        pillow_heif.from_pillow(multiplied).save(file, quality=-1, chroma=444)
        source = file.getvalue()
    assert b"prem" in source
    image = decode_checked(source, {"AVIF", "HEIC"})
    assert image.alpha is not None
    assert np.array_equal(image.alpha, pixels[..., 3])
    assert np.abs(image.rgb.astype(int) - pixels[..., :3]).max() <= 6


def test_floating_tiff_is_an_unsupported_format() -> None:
    with pytest.raises(UnsupportedImageFormat):
        decode_file(save(np.ones((64, 64), np.float32), "TIFF"), {"TIFF"})


def test_cmyk_tiff_becomes_srgb() -> None:
    inks = PillowImage.new("CMYK", (64, 64), (255, 0, 0, 0))
    image = decode_file(save(inks, "TIFF"), {"TIFF"})
    assert image.icc is None
    assert image.rgb[0, 0].tolist() == [0, 255, 255]


def test_lab_tiff_becomes_the_same_srgb_as_by_littlecms() -> None:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    shown = PillowImage.fromarray(picture(64, 64))
    there = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    converted = ImageCms.applyTransform(shown, there)
    assert converted is not None
    image = decode_file(save(converted, "TIFF"), {"TIFF"})
    assert np.abs(image.rgb.astype(int) - picture(64, 64)).max() <= 20
    assert np.abs(image.rgb.astype(int) - picture(64, 64)).mean() < 1.5


def test_headers_of_all_other_formats_are_read_without_a_decoder(tmp_path: Path) -> None:
    """In the front end no library in C reads the file."""
    kinds = ["AVIF", "HEIC", "JPEG", "PNG", "TIFF", "WEBP"]
    for kind in kinds:
        (tmp_path / kind).write_bytes(encode(picture(72, 96), kind))
    code = (
        "import sys, upscaled.image.formats.table as p\n"
        "loaded = {'PIL._avif', 'PIL._webp', '_pillow_heif', 'PIL.TiffImagePlugin', 'numpy'}\n"
        "loaded |= {'simplejpeg', 'torch', 'cv2'}\n"
        "for kind in sys.argv[1:]:\n"
        "    info = p.read_header(open(kind, 'rb').read(), {kind})\n"
        "    assert (info.width_px, info.height_px) == (96, 72), kind\n"
        "    assert not loaded & set(sys.modules), (kind, loaded & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, *kinds]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_header_of_a_bmp_is_read_by_pillow_which_then_decodes_it() -> None:
    source = encode(picture(), "BMP")
    header = read_header(source, {"BMP"})
    assert isinstance(header.parts, BmpImageFile)
    assert np.array_equal(decode(source, header).rgb, picture())


@pytest.mark.parametrize("kind", ["AVIF", "HEIC", "WEBP"])
def test_pixels_have_the_size_of_the_header(kind: str) -> None:
    """libavif stretches the picture to the header's size; the others refuse the file."""
    if kind == "WEBP":
        source = bytearray(save(picture(72, 96), kind, exif=b"Exif\0\0tags"))
        source[24] = 99
    else:
        source = bytearray(encode(picture(72, 96), kind))
        at = source.index(b"ispe") + 8
        source[at : at + 4] = (100).to_bytes(4, "big")
    assert read_header(bytes(source), ALL).width_px == 100
    try:
        assert decode_file(bytes(source), ALL).width_px == 100
    except MalformedImage:
        assert kind != "AVIF"
    else:
        assert kind == "AVIF"


@pytest.mark.parametrize("kind", sorted(OPTIONAL))
def test_a_huge_size_is_refused_from_the_header(kind: str) -> None:
    source = bytearray(encode(picture(72, 96), kind))
    if kind == "BMP":
        source[18:26] = (30_000).to_bytes(4, "little") * 2
    elif kind == "TIFF":
        for tag in (b"\x00\x01\x04\x00", b"\x01\x01\x04\x00"):
            at = source.find(tag) if tag in source else source.index(tag[:2] + b"\x03\x00")
            source[at : at + 12] = tag[:2] + b"\x04\x00\x01\0\0\0" + (30_000).to_bytes(4, "little")
    else:
        at = source.index(b"ispe") + 8
        source[at : at + 8] = (30_000).to_bytes(4, "big") * 2
    for read in (read_header, decode_file):
        with pytest.raises(ResolutionTooHigh):
            read(bytes(source), ALL)
