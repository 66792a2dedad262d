import pytest

from upscaled.image.formats.table import ALWAYS_DECODED, FORMATS, OPTIONAL, sniff


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


def test_only_three_formats_are_enabled() -> None:
    assert {"JPEG", "PNG", "WEBP"} == ALWAYS_DECODED


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_signature_and_brand_of_a_row_is_recognised(name: str) -> None:
    row = FORMATS[name]
    files = [*row.signatures, *(b"\x00\x00\x00\x14ftyp" + brand for brand in row.brands)]
    assert [sniff(file) for file in files] == [name] * len(files)
    assert (name in OPTIONAL) is row.is_optional
