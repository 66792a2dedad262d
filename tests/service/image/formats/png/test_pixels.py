"""PNGs that lack pixels: refused at every cut, whatever follows it; whole ones are taken."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.service.image.samples import (
    CHANNELS,
    PALETTE,
    PNG_KINDS,
    PNG_SIGNATURE,
    RGB,
    RGBA,
    chunk,
    count_refused,
    deep_samples,
    have_equal_pixels,
    pack_passes,
    picture,
    png,
    save_frames,
)
from upscaled.errors import MalformedImage, ServiceError
from upscaled.image.decode import decode_file
from upscaled.image.formats.png import structure
from upscaled.image.formats.png.pixels import MAX_SURPLUS_BYTES, count_pixel_bytes
from upscaled.image.formats.png.structure import PngHeader, isal_zlib, iterate_chunks
from upscaled.image.types import Image

IEND = chunk(b"IEND", b"")
CUTS = 20
HEIGHT, WIDTH = 33, 37
"""Neither a multiple of 8: Adam7's passes are of all sizes."""


def tails(source: bytes, cut: int) -> Iterator[tuple[str, bytes]]:
    """Iterate over names and bytes of what may stand behind a cut."""
    missing = len(source) - cut
    yield "plain", b""
    yield "an end marker", IEND
    yield "zeros", bytes(missing)
    yield "random bytes", np.random.default_rng(cut).bytes(missing)


def cut_everywhere(source: bytes, cuts: int = CUTS) -> None:
    """Assert that each cut before the end of the pixels is refused with each tail."""
    whole = decode_file(source)
    last = [each for each in iterate_chunks(source) if each.name == b"IDAT"][-1]
    pixels_end = last.start + last.length + 4
    for number in range(cuts):
        cut = len(source) * number // cuts
        for name, tail in tails(source, cut):
            refused = count_refused([source[:cut] + tail], whole)
            assert refused or cut >= pixels_end, (cut, name)


def sample_file(
    colour: int, bits: int, *, interlaced: bool = False, compressed: bytes | None = None
) -> bytes:
    """Make a file of that kind, or one with another stream in the place of its pixels."""
    samples = deep_samples(CHANNELS[colour], bits, HEIGHT, WIDTH)
    colours = np.random.default_rng(4).bytes(3 << bits) if colour == PALETTE else b""
    before = chunk(b"PLTE", colours) if colours else b""
    return png(samples, bits, colour, before=before, interlaced=interlaced, compressed=compressed)


def raw_pixels(colour: int, bits: int, *, interlaced: bool = False) -> bytes:
    """Return the bytes in the stream of `sample_file`."""
    samples = deep_samples(CHANNELS[colour], bits, HEIGHT, WIDTH)
    return pack_passes(samples, bits, interlaced=interlaced)


def in_chunks(source: bytes, chunk_bytes: int) -> bytes:
    """Part the only IDAT of a file into many."""
    (idat,) = (each for each in iterate_chunks(source) if each.name == b"IDAT")
    data = idat.data(source)
    parts = (data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes))
    many = b"".join(chunk(b"IDAT", part) for part in parts)
    return source[: idat.start - 8] + many + source[idat.start + idat.length + 4 :]


def refuse(source: bytes) -> None:
    with pytest.raises(MalformedImage):
        decode_file(source)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
def test_a_cut_file_is_refused(colour: int, bits: int, interlaced: bool) -> None:
    source = sample_file(colour, bits, interlaced=interlaced)
    cut_everywhere(source)
    cut_everywhere(in_chunks(source, 1 + len(source) // 7))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
def test_rows_that_are_missing_are_noticed_though_the_file_is_sound(
    colour: int, bits: int, interlaced: bool
) -> None:
    """All checksums are right, of the chunks and of the stream."""
    raw = raw_pixels(colour, bits, interlaced=interlaced)
    whole = decode_file(sample_file(colour, bits, interlaced=interlaced))
    for length in (*(len(raw) * number // CUTS for number in range(CUTS)), len(raw) - 1):
        stream = zlib.compress(raw[:length])
        refuse(sample_file(colour, bits, interlaced=interlaced, compressed=stream))
    sound = sample_file(colour, bits, interlaced=interlaced, compressed=zlib.compress(raw))
    assert have_equal_pixels(decode_file(sound), whole)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
def test_a_stream_cut_within_a_sound_chunk_is_refused(
    colour: int, bits: int, interlaced: bool
) -> None:
    """Zeros are codes too, which make pixels as well as any."""
    stream = zlib.compress(raw_pixels(colour, bits, interlaced=interlaced))
    lengths = (len(stream) * number // CUTS for number in range(CUTS))
    for length in (*lengths, *range(len(stream) - 6, len(stream))):
        cut = stream[:length]
        for ending in (
            b"",
            bytes(8),
            bytes(100_000),
            cut[-4:],
            struct.pack(">I", zlib.adler32(b"")),
        ):
            refuse(sample_file(colour, bits, interlaced=interlaced, compressed=cut + ending))


def animated_file() -> bytes:
    """Make an APNG of three frames, of which the first is the still image."""
    return save_frames("PNG", *(picture(HEIGHT, WIDTH) + np.uint8(at) for at in (0, 30, 60)))


def test_a_cut_animation_is_refused_until_its_first_frame_is_whole() -> None:
    source = animated_file()
    assert {b"acTL", b"fcTL", b"fdAT"} < {each.name for each in iterate_chunks(source)}
    cut_everywhere(source, cuts=60)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_file_cut_between_its_chunks_is_refused(interlaced: bool) -> None:
    """At every border between IDATs no chunk is broken."""
    source = in_chunks(sample_file(RGB, 8, interlaced=interlaced), 100)
    whole = decode_file(source)
    borders = [each.start - 8 for each in iterate_chunks(source) if each.name == b"IDAT"]
    assert len(borders) > 20
    for border in borders:
        cut = [source[:border] + tail for _, tail in tails(source, border)]
        assert count_refused(cut, whole) == len(cut)


@pytest.mark.parametrize("name", [b"IDAT", b"IHDR"])
def test_a_wrong_checksum_of_a_chunk_that_matters_is_refused(name: bytes) -> None:
    source = in_chunks(sample_file(RGB, 8), 500)
    for each in iterate_chunks(source):
        if each.name == name:
            broken = bytearray(source)
            broken[each.start + each.length] ^= 1
            refuse(bytes(broken))


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What inflates: ISA-L, and zlib where that is not installed."""
    if request.param == "zlib":
        monkeypatch.setattr(structure, "isal_zlib", None)
    elif isal_zlib is None:
        pytest.skip("isal is not installed")


@pytest.mark.usefixtures("library")
def test_every_flipped_bit_of_the_stream_is_noticed_though_the_chunk_is_sound() -> None:
    """By the stream's own checksum; its last bits may mean nothing."""
    source = sample_file(RGB, 8)
    whole = decode_file(source)
    stream = zlib.compress(raw_pixels(RGB, 8))
    files = []
    for at in (*range(0, len(stream), 13), *range(len(stream) - 8, len(stream))):
        broken = bytearray(stream)
        broken[at] ^= 1 << at % 8
        files.append(sample_file(RGB, 8, compressed=bytes(broken)))
    assert count_refused(files, whole) >= len(files) - 1


def stream_heads() -> Iterator[bytes]:
    """Iterate over two bytes for a stream's head: all whose check bits are right, and others."""
    rng = np.random.default_rng(7)
    for method in range(256):
        right = [flags for flags in range(256) if (method << 8 | flags) % 31 == 0]
        for flags in (*right, int(rng.integers(256))):
            yield bytes((method, flags))


@pytest.mark.usefixtures("library")
def test_a_stream_is_accepted_where_zlib_accepts_its_head() -> None:
    """Of any window, method, dictionary and check bits (RFC 1950, 2.2)."""
    samples = deep_samples(3, 8, 1, 1)
    stream = zlib.compress(pack_passes(samples, 8, interlaced=False))
    accepted = 0
    for head in stream_heads():
        source = png(samples, 8, RGB, compressed=head + stream[2:])
        try:
            zlib.decompress(head + stream[2:])
        except zlib.error:
            refuse(source)
        else:
            accepted += 1
            assert decode_file(source).rgb.shape == (1, 1, 3)
    assert accepted > 8


def odd_streams() -> dict[str, bytes]:
    """Make streams that hold all pixels, as some programs write them."""
    raw = raw_pixels(RGB, 8)
    usual = zlib.compress(raw)
    small_window = zlib.compressobj(9, zlib.DEFLATED, 9)
    fixed = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FIXED)
    return {
        "bytes behind the stream": usual + b"trailing" * 20,
        "another stream behind it": usual + usual,
        "rows too many": zlib.compress(raw + bytes(5000)),
        "part of a row too many": zlib.compress(raw + b"x"),
        "a small window": small_window.compress(raw) + small_window.flush(),
        "stored": zlib.compress(raw, 0),
        "fixed codes": fixed.compress(raw) + fixed.flush(),
    }


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", sorted(odd_streams()))
def test_an_unusual_stream_that_holds_all_pixels_is_accepted(name: str) -> None:
    source = sample_file(RGB, 8, compressed=odd_streams()[name])
    assert have_equal_pixels(decode_file(source), decode_file(sample_file(RGB, 8)))


def odd_files() -> dict[str, bytes]:
    """Make files whose pixels are whole though other parts are wrong."""
    source = sample_file(RGB, 8)
    start = source.index(b"IDAT") - 4
    end = len(source) - len(IEND)
    idat = source[start:end]
    empty = chunk(b"IDAT", b"")
    half = len(idat) // 2
    return {
        "many small chunks": in_chunks(source, 1),
        "empty chunks": source[:start] + empty * 9 + idat + empty * 9 + IEND,
        "a chunk among the pixels": source[:start]
        + chunk(b"IDAT", idat[8:half])
        + chunk(b"tEXt", b"a\x00b")
        + chunk(b"IDAT", idat[half:-4])
        + IEND,
        "no end": source[:end],
        "part of an end": source[:-5],
        "an end with a wrong checksum": source[:-1] + b"x",
        "zeros for an end": source[:end] + bytes(2_000_000),
        "bytes behind the end": source + b"trailing" * 1000,
        "a file behind the end": source + source,
        "a video behind the end": source + b"\x00\x00\x00\x18ftypmp42" + bytes(500),
    }


@pytest.mark.parametrize("name", sorted(odd_files()))
def test_an_unusual_file_that_holds_all_pixels_is_accepted(name: str) -> None:
    assert have_equal_pixels(decode_file(odd_files()[name]), decode_file(sample_file(RGB, 8)))


def test_surplus_rows_are_accepted_up_to_the_limit() -> None:
    raw = raw_pixels(RGB, 8)
    whole = decode_file(sample_file(RGB, 8))
    most = sample_file(RGB, 8, compressed=zlib.compress(raw + bytes(MAX_SURPLUS_BYTES)))
    assert have_equal_pixels(decode_file(most), whole)
    refuse(sample_file(RGB, 8, compressed=zlib.compress(raw + bytes(MAX_SURPLUS_BYTES + 1))))


@pytest.mark.slow
def test_inflating_ends_where_surplus_rows_reach_the_limit() -> None:
    """100 MB more are refused before the second half of them is looked at."""
    raw = raw_pixels(RGB, 8)
    bomb = sample_file(RGB, 8, compressed=zlib.compress(raw + bytes(100_000_000)))
    halves = bytearray(in_chunks(bomb, len(bomb) // 2))
    halves[-len(IEND) - 40] ^= 1  # the last chunk's checksum is wrong
    with pytest.raises(MalformedImage) as refusal:
        decode_file(bytes(halves))
    assert "behind the last row" in refusal.value.detail


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
def test_counted_pixel_bytes_equal_those_an_encoder_packs(
    colour: int, bits: int, interlaced: bool
) -> None:
    for height in (1, 2, 3, 5, 8, 9):
        for width in range(1, 18):
            samples = deep_samples(CHANNELS[colour], bits, height, width)
            header = PngHeader(width, height, bits, colour, interlaced)
            packed = pack_passes(samples, bits, interlaced=interlaced)
            assert count_pixel_bytes(header) == len(packed), (width, height)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("chunk_bytes", [8192, 65_536, 10_000_000])
def test_large_images_are_decoded_in_many_pieces(
    interlaced: bool, bits: int, chunk_bytes: int
) -> None:
    samples = deep_samples(4, bits, 200, 450)
    image = decode_file(in_chunks(png(samples, bits, RGBA, interlaced=interlaced), chunk_bytes))
    assert have_equal_pixels(image, Image(samples[..., :3], samples[..., 3]))


def test_shared_cases_of_missing_rows_are_refused(shared_dir: Path) -> None:
    for name in ("png-rows-missing/pshort_200.png", "zero-filled-tail/half.png"):
        refuse((shared_dir / "cases" / name).read_bytes())


@pytest.mark.slow
def test_other_peoples_files_are_refused_at_every_cut(shared_dir: Path) -> None:
    tried = 0
    for path in sorted((shared_dir / "images").rglob("*.png")):
        source = path.read_bytes()
        try:
            decode_file(source)
        except ServiceError:
            continue
        if not source.startswith(PNG_SIGNATURE) or len(source) > 300_000:
            continue
        cut_everywhere(source)
        tried += 1
    assert tried > 50
