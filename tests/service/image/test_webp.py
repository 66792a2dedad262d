import resource
import struct
import subprocess
import sys

import pytest

from service.image.webp import Canvas, read_canvas
from tests.service.image.samples import picture, save
from tests.service.image.test_probe import webp_header


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 65), (300, 1), (2, 16383)])
def test_every_kind_tells_its_size_and_alpha(height: int, width: int) -> None:
    opaque, cut_out = picture(height, width), picture(height, width, channels=4)
    cut_out[0, 0, 3] = 0
    sources = {
        (b"VP8 ", False): save(opaque, "WEBP"),
        (b"VP8L", False): save(opaque, "WEBP", lossless=True),
        (b"VP8L", True): save(cut_out, "WEBP", lossless=True, exact=True),
        (b"VP8X", True): save(cut_out, "WEBP", exif=b"Exif\0\0tags"),
        (b"VP8X", False): save(opaque, "WEBP", exif=b"Exif\0\0tags"),
    }
    for (kind, has_alpha), source in sources.items():
        assert source[12:16] == kind
        exif = b"tags" if kind == b"VP8X" else b""
        assert read_canvas(source) == Canvas(width, height, has_alpha, exif)


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    source = save(picture(64, 64), "WEBP")
    for length in range(len(source)):
        with pytest.raises((ValueError, struct.error)):
            read_canvas(source[:length])


def test_another_first_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="JUNK"):
        read_canvas(b"RIFF\x18\0\0\0WEBPJUNK" + bytes(40))


def test_chunks_without_end_are_refused() -> None:
    body = b"WEBPVP8X" + struct.pack("<IB", 10, 0x08) + bytes(9) + b"JUNK\0\0\0\0" * 30_000
    with pytest.raises(ValueError, match="chunks"):
        read_canvas(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_huge_canvas_is_refused_where_there_is_no_room_for_it() -> None:
    """In a process that may hold 300 MB; the canvas would take 1 GB, twice."""
    program = (
        "import sys\n"
        "from service.image.probe import probe\n"
        "from service.errors import ResolutionTooHigh\n"
        "try: probe(bytes.fromhex(sys.argv[1]))\n"
        "except ResolutionTooHigh: print('refused')\n"
    )
    limit = 300 * 1024 * 1024
    done = subprocess.run(
        [sys.executable, "-c", program, webp_header(16_000, 16_000).hex()],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stdout == "refused\n", done.stderr
