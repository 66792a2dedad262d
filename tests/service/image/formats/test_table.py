import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from tests.service.image.jpeg_samples import read_structure
from tests.service.image.samples import (
    RGB,
    chunk,
    deep_samples,
    exif_with_orientation,
    picture,
    png,
    save,
)
from upscaled.errors import MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import ALWAYS_DECODED, FORMATS, OPTIONAL, read_header, sniff
from upscaled.image.metadata import Exif
from upscaled.image.types import Header


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "WEBP"),
        (b"GIF89a\x01\x00", "GIF"),
        (b"II*\x00\x08\x00", "TIFF"),
        (b"MM\x00*\x00\x00", "TIFF"),
        (b"BM\x36\x00", "BMP"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\x00\x01", "PSD"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
        (b"\xff\x0a\xfa", "JXL"),
        (b"\x00\x00\x01\x00\x01\x00", "ICO"),
        (b"qoif\x00", "QOI"),
        (b"P6\n3 3\n255\n", "PPM"),
        (b"DDS \x7c", "DDS"),
        (b"FUJIFILMCCD-RAW 0201", "RAW"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", "AVIF"),
        (b"\x00\x00\x00\x1cftypisom\x00\x00\x00\x00mif1heicmiaf", "HEIC"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01", "RAW"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><!-- c --><SVG>", "SVG"),
        ("<?xml version='1.0'?><svg/>".encode("utf-16"), "SVG"),
        (bytes(60) + b"TRUEVISION-XFILE.\x00", "TGA"),
    ],
)
def test_formats_are_recognised_by_their_bytes(source: bytes, name: str) -> None:
    assert sniff(source) == name


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\x00",
        b"P6",
        b"hello world",
        b"<html><body>404</body></html>",
        b'{"error": "no"}',
        b"RIFF\x00\x00\x00\x00WAVE",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
        b"\xff\xd8",
        b"\x89PNG\r\n",
    ],
)
def test_bytes_that_are_no_image_have_no_format(source: bytes) -> None:
    assert sniff(source) is None


def test_a_fault_of_the_readers_own_code_is_not_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Exif, "orientation")
    with pytest.raises(AttributeError):
        read_header(png(deep_samples(3, 8), 8, RGB))


def test_only_three_formats_are_enabled() -> None:
    assert {"JPEG", "PNG", "WEBP"} == ALWAYS_DECODED


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_signature_and_brand_of_a_row_is_recognised(name: str) -> None:
    row = FORMATS[name]
    files = [*row.signatures, *(b"\x00\x00\x00\x14ftyp" + brand for brand in row.brands)]
    assert [sniff(file) for file in files] == [name] * len(files)
    assert (name in OPTIONAL) is row.is_optional


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_reported_though_every_pixel_is_opaque(kind: str) -> None:
    pixels = picture(channels=4)
    pixels[..., 3] = 255
    assert read_header(save(pixels, kind, lossless=True, exact=True)).has_alpha == (kind == "PNG")
    pixels[0, 0, 3] = 0
    assert read_header(save(pixels, kind, lossless=True, exact=True)).has_alpha


def test_orientation_behind_the_pixels_counts() -> None:
    """PNG allows eXIf anywhere; the pixels in between are not decoded to find it."""
    exif = exif_with_orientation(6).removeprefix(b"Exif\x00\x00")
    source = png(deep_samples(3, 8, 20, 30), 8, RGB, after=chunk(b"eXIf", exif))
    assert read_header(source) == Header("PNG", 20, 30, has_alpha=False)


def test_a_broken_exif_block_is_ignored() -> None:
    source = save(picture(48, 64), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xffjunk")
    assert read_header(source) == Header("JPEG", 64, 48, has_alpha=False)


@pytest.mark.parametrize("source", [b"", b"\x00", b"<html>not found</html>", b"\xff\xd8\xff"])
def test_no_image_is_malformed(source: bytes) -> None:
    with pytest.raises(MalformedImage):
        read_header(source)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "PPM", "ICO", "TGA", "AVIF", "DDS", "PDF"])
def test_known_formats_that_are_not_enabled_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedImageFormat):
        read_header(save(picture(), kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_cut_of_a_header_is_malformed_or_the_whole_header(kind: str) -> None:
    source = save(picture(), kind, exif=exif_with_orientation(6))
    whole = read_header(source)
    for length in range(len(source)):
        try:
            assert read_header(source[:length]) == whole
        except MalformedImage:
            continue


def test_a_claimed_size_is_read_without_memory_for_its_pixels() -> None:
    source = png(deep_samples(3, 8, 1, 1), 8, RGB, size=(10_000, 10_000))
    tracemalloc.start()
    info = read_header(source)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (info.width_px, info.height_px) == (10_000, 10_000)
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("size", [(10_001, 10_000), (2**31 - 1, 2**31 - 1), (65_535, 65_535)])
def test_a_size_beyond_every_setting_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ResolutionTooHigh):
        read_header(png(deep_samples(3, 8, 1, 1), 8, RGB, size=size))


def test_a_side_of_no_pixels_is_malformed() -> None:
    with pytest.raises(MalformedImage):
        read_header(png(deep_samples(3, 8, 1, 1), 8, RGB, size=(0, 64)))


def test_random_bytes_behind_a_signature_raise_only_refusals() -> None:
    chance = np.random.default_rng(1)
    heads = (
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"RIFF\x40\x00\x00\x00WEBPVP8L",
    )
    for case in range(600):
        source = heads[case % 3] + chance.bytes(int(chance.integers(0, 400)))
        try:
            read_header(source)
        except (MalformedImage, ResolutionTooHigh):
            continue


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\xff\xd8" + b"\xff\xe1\x00\x02" * 2_000_000,  # empty segments
        lambda: b"\xff\xd8\xff\xe0\x00\x02" + b"\x00" * 8_000_000,  # junk between segments
        lambda: b"\xff\xd8" + b"\xff" * 8_000_000,  # padding before a marker
        lambda: png(deep_samples(3, 8), 8, RGB, before=chunk(b"juNk", b"") * 600_000),
        lambda: png(deep_samples(3, 8), 8, RGB, after=chunk(b"IDAT", b"") * 600_000),
    ],
    ids=["jpeg segments", "jpeg junk", "jpeg padding", "png chunks", "png pixel chunks"],
)
def test_a_header_in_a_million_pieces_is_refused_early(make: Callable[[], bytes]) -> None:
    """All of it would take Pillow 3 to 20 s of one core."""
    source = make()
    started_s = time.process_time()
    with pytest.raises(MalformedImage):
        read_header(source)
    assert time.process_time() - started_s < 1


def test_a_header_of_many_ordinary_pieces_is_read() -> None:
    """A profile of 4 MB in a JPEG, and a PNG whose pixels come in 1,000 chunks."""
    segments = b"".join(b"\xff\xe2\xff\xff" + bytes(65_533) for _ in range(64))
    jpeg = save(picture(), "JPEG")
    assert read_header(jpeg[:2] + segments + jpeg[2:]).width_px == 64
    source = png(deep_samples(3, 8), 8, RGB, before=chunk(b"IDAT", b"") * 1000)
    assert read_header(source).width_px == 30


def with_repeated_scan(count: int) -> bytes:
    """Make a progressive JPEG whose last scan is repeated until there are `count`."""
    source = save(picture(), "JPEG", progressive=True)
    last_scan = source[source.rindex(b"\xff\xda") : -2]
    others = source[: source.rindex(b"\xff\xda")]
    return others + last_scan * (count - others.count(b"\xff\xda")) + b"\xff\xd9"


def test_scans_are_counted_before_they_are_decoded() -> None:
    """Of 25 MB of scans each would cost a pass over all pixels: hours for a large picture."""
    assert len(read_structure(with_repeated_scan(500)).scans) == 500
    assert read_header(with_repeated_scan(500)).width_px == 64
    for read in (read_header, decode_file):
        with pytest.raises(MalformedImage, match="more than 500 scans"):
            read(with_repeated_scan(501))
