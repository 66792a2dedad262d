import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.service.image.samples import (
    decode_checked,
    exif_with_orientation,
    have_equal_pixels,
    picture,
    save,
)
from tests.service.image.webp_samples import (
    ALPHA_FLAG,
    ANIMATION_FLAG,
    EXIF_FLAG,
    ICC_FLAG,
    Chunk,
    chunks_of,
    extended,
    frame,
    promise,
    webp,
)
from upscaled.errors import MalformedImage
from upscaled.image.decode import decode_file
from upscaled.image.formats.table import read_header
from upscaled.image.formats.webp.structure import read_first_image

WIDTH, HEIGHT = 97, 75
ANIM: Chunk = (b"ANIM", bytes(6))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 65), (300, 1), (2, 16383)])
def test_size_and_alpha_of_every_kind_are_read(height: int, width: int) -> None:
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
        first = read_first_image(source)
        assert (first.canvas_px, first.has_alpha) == ((width, height), has_alpha)
        assert first.metadata.get(b"EXIF", b"") == exif


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    source = save(picture(64, 64), "WEBP")
    for length in range(len(source)):
        with pytest.raises((ValueError, struct.error)):
            read_first_image(source[:length])


def test_another_first_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="JUNK"):
        read_first_image(b"RIFF\x18\0\0\0WEBPJUNK" + bytes(40))


def test_chunks_without_end_are_refused() -> None:
    body = b"WEBPVP8X" + struct.pack("<IB", 10, 0x08) + bytes(9) + b"JUNK\0\0\0\0" * 30_000
    with pytest.raises(ValueError, match="chunks"):
        read_first_image(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_huge_canvas_is_refused_in_a_process_without_memory_for_it() -> None:
    """In a process that may hold 300 MB; the canvas would take 1 GB, twice."""
    program = (
        "import sys\n"
        "from upscaled.image.formats.table import read_header\n"
        "from upscaled.errors import ResolutionTooHigh\n"
        "try: read_header(bytes.fromhex(sys.argv[1]))\n"
        "except ResolutionTooHigh: print('refused')\n"
    )
    limit = 300 * 1024 * 1024
    done = subprocess.run(
        [sys.executable, "-c", program, promise(16_000, 16_000).hex()],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stdout == "refused\n", done.stderr


def bitstreams(kind: str, *, cut_out: bool) -> list[Chunk]:
    """List the chunks that carry an image's pixels, with transparency or without."""
    pixels = picture(HEIGHT, WIDTH, channels=4 if cut_out else 3)
    source = save(pixels, "WEBP", lossless=kind == "lossless", exact=True)
    found = chunks_of(source)
    return [(name, found[name]) for name in (b"ALPH", b"VP8 ", b"VP8L") if name in found]


@pytest.mark.parametrize("flags", [0, ALPHA_FLAG])
@pytest.mark.parametrize("cut_out", [True, False])
@pytest.mark.parametrize("kind", ["lossy", "lossless"])
def test_alpha_follows_the_bitstream_and_not_the_flag(kind: str, cut_out: bool, flags: int) -> None:
    chunks = bitstreams(kind, cut_out=cut_out)
    plain = save(
        picture(HEIGHT, WIDTH, channels=4 if cut_out else 3),
        "WEBP",
        lossless=kind == "lossless",
        exact=True,
    )
    expected = decode_checked(plain)
    assert (expected.alpha is not None) is cut_out
    for source in (
        webp(extended(WIDTH, HEIGHT, flags), *chunks),
        webp(extended(WIDTH, HEIGHT, flags), (b"JUNK", b"odd"), *chunks, (b"XMP ", b"x")),
        webp(
            extended(WIDTH, HEIGHT, flags | ANIMATION_FLAG),
            ANIM,
            frame(0, 0, WIDTH, HEIGHT, *chunks),
            frame(0, 0, WIDTH, HEIGHT, *bitstreams("lossy", cut_out=not cut_out)),
        ),
    ):
        assert have_equal_pixels(decode_checked(source), expected)


def test_alpha_without_an_extended_header_is_read() -> None:
    chunks = bitstreams("lossy", cut_out=True)
    announced = decode_checked(webp(extended(WIDTH, HEIGHT, ALPHA_FLAG), *chunks))
    assert announced.has_alpha
    assert have_equal_pixels(decode_checked(webp(*chunks)), announced)


def test_an_alpha_chunk_beside_a_lossless_bitstream_is_ignored() -> None:
    alpha, *_ = bitstreams("lossy", cut_out=True)
    chunks = bitstreams("lossless", cut_out=False)
    source = webp(extended(WIDTH, HEIGHT, ALPHA_FLAG), alpha, *chunks)
    assert np.array_equal(decode_checked(source).rgb, picture(HEIGHT, WIDTH))
    assert not read_header(source).has_alpha


@pytest.mark.parametrize("flags", [0, ALPHA_FLAG])
def test_canvas_outside_of_the_first_frame_is_transparent(flags: int) -> None:
    chunks = bitstreams("lossless", cut_out=False)
    canvas = extended(WIDTH + 20, HEIGHT + 9, flags | ANIMATION_FLAG)
    source = webp(canvas, ANIM, frame(10, 4, WIDTH, HEIGHT, *chunks))
    image = decode_checked(source)
    rgb, alpha = image.rgb, image.alpha
    assert alpha is not None
    assert np.array_equal(rgb[4 : 4 + HEIGHT, 10 : 10 + WIDTH], picture(HEIGHT, WIDTH))
    assert (alpha == 255).sum() == WIDTH * HEIGHT == (alpha > 0).sum()


def test_a_last_chunk_without_its_padding_is_accepted() -> None:
    name, data = bitstreams("lossless", cut_out=False)[0]
    odd = (name, data + bytes(1 - len(data) % 2))
    assert np.array_equal(decode_checked(webp(odd)).rgb, picture(HEIGHT, WIDTH))
    unpadded = bytearray(webp(odd)[:-1])
    unpadded[4:8] = (len(unpadded) - 8).to_bytes(4, "little")
    assert np.array_equal(decode_checked(bytes(unpadded)).rgb, picture(HEIGHT, WIDTH))


def test_metadata_are_read_only_where_the_header_announces_them() -> None:
    """As for libwebp, and so for browsers."""
    chunks = bitstreams("lossless", cut_out=False)
    exif = exif_with_orientation(6)
    for flags, is_turned in ((EXIF_FLAG, True), (0, False), (EXIF_FLAG | ICC_FLAG, True)):
        source = webp(extended(WIDTH, HEIGHT, flags), *chunks, (b"EXIF", exif))
        assert (read_header(source).width_px == HEIGHT) is is_turned
        assert (decode_file(source).width_px == HEIGHT) is is_turned
    for flags in (EXIF_FLAG, ICC_FLAG):  # and the chunk is missing
        assert decode_file(webp(extended(WIDTH, HEIGHT, flags), *chunks)).icc is None


def test_a_file_without_a_whole_image_on_its_canvas_is_malformed() -> None:
    lossy, (alpha, _) = bitstreams("lossy", cut_out=False), bitstreams("lossy", cut_out=True)
    canvas, moving = extended(WIDTH, HEIGHT, 0), extended(WIDTH, HEIGHT, ANIMATION_FLAG)
    for broken in (
        webp(canvas),
        webp(moving, ANIM),
        webp(moving, ANIM, frame(0, 0, WIDTH, HEIGHT)),
        webp(canvas, alpha),
        webp((b"VP8X", bytes(4)), *lossy),
        webp(extended(WIDTH + 1, HEIGHT, 0), *lossy),
        webp(canvas, (b"VP8L", b"\x2f\0\0\0\0")),
        webp(canvas, (b"VP8 ", bytes(20))),
        webp(moving, ANIM, frame(2, 0, WIDTH, HEIGHT, *lossy)),
    ):
        with pytest.raises(MalformedImage):
            decode_file(broken)


def test_files_of_the_shared_cases_have_their_alpha(shared_dir: Path) -> None:
    for file in sorted((shared_dir / "cases" / "webp-alpha-flag").glob("*.webp")):
        alpha = decode_checked(file.read_bytes()).alpha
        assert alpha is not None, file
        assert set(np.unique(alpha)) >= {0, 255}, file
