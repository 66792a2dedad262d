import resource
import subprocess
import sys

import pytest

from service.image.webp import read_canvas_px
from tests.service.image.samples import picture, save
from tests.service.image.test_probe import webp_header


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 65), (300, 1), (2, 16383)])
def test_every_kind_tells_its_size(height: int, width: int) -> None:
    opaque, cut_out = picture(height, width), picture(height, width, channels=4)
    sources = {
        b"VP8 ": save(opaque, "WEBP"),
        b"VP8L": save(opaque, "WEBP", lossless=True),
        b"VP8X": save(cut_out, "WEBP", exif=b"Exif\0\0"),
    }
    for kind, source in sources.items():
        assert source[12:16] == kind
        assert read_canvas_px(source) == (width, height)


@pytest.mark.parametrize("length", range(30))
def test_a_cut_off_head_is_no_error(length: int) -> None:
    read_canvas_px(save(picture(64, 64), "WEBP")[:length])


def test_another_chunk_tells_nothing() -> None:
    assert read_canvas_px(b"RIFF\0\0\0\0WEBPJUNK" + bytes(20)) is None


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
