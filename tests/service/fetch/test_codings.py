import gzip
import os
import random
import zlib

import pytest

from tests.counting import assert_linear
from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.codings import MAX_CODINGS, STEP_BYTES, choose_stages, finish, unpack
from upscaled.fetch.head import parse_head
from upscaled.fetch.url import UnusableUrl

LIMIT_BYTES = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n" + os.urandom(3000) + bytes(20_000)
JPEG = b"\xff\xd8\xff\xe0" + os.urandom(3000)
WEBP = b"RIFF\x00\x10\x00\x00WEBPVP8 " + os.urandom(3000)


def deflate(data: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-15)
    return raw.compress(data) + raw.flush()


def read(
    lines: str, wire: bytes, piece_bytes: int = 10**9, limit_bytes: int = LIMIT_BYTES
) -> bytes:
    head = parse_head(f"HTTP/1.1 200 OK\r\n{lines}\r\n\r\n".encode())
    stages = choose_stages(head, limit_bytes)
    body: list[bytes] = []
    for at in range(0, len(wire), piece_bytes):
        body += unpack(stages, wire[at : at + piece_bytes])
    return b"".join([*body, *finish(stages)])


PACKED = {
    "gzip": ("Content-Encoding: gzip", gzip.compress(PNG)),
    "x-gzip": ("Content-Encoding: X-GZIP", gzip.compress(PNG)),
    "deflate": ("Content-Encoding: deflate", zlib.compress(PNG)),
    "raw deflate": ("Content-Encoding: deflate", deflate(PNG)),
    "gzip called deflate": ("Content-Encoding: deflate", gzip.compress(PNG)),
    "gzip in members": (
        "Content-Encoding: gzip",
        gzip.compress(PNG[:99]) + gzip.compress(PNG[99:]),
    ),
    "gzip with bytes behind": ("Content-Encoding: gzip", gzip.compress(PNG) + bytes(512)),
    "deflate with bytes behind": ("Content-Encoding: deflate", zlib.compress(PNG) + b"\r\n"),
    "gzip of what cannot be packed": ("Content-Encoding: gzip", gzip.compress(PNG, 0)),
    "gzip twice": ("Content-Encoding: gzip, gzip", gzip.compress(gzip.compress(PNG))),
    "gzip in deflate": (
        "Content-Encoding: gzip\r\nContent-Encoding: deflate",
        zlib.compress(gzip.compress(PNG)),
    ),
    "gzip for the way": ("Transfer-Encoding: gzip, chunked", gzip.compress(PNG)),
    "gzip for the way, deflate before": (
        "Content-Encoding: deflate\r\nTransfer-Encoding: gzip",
        gzip.compress(zlib.compress(PNG)),
    ),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("piece_bytes", [1, 7, 10**9])
def test_compressed_bodies_are_decompressed(name: str, piece_bytes: int) -> None:
    lines, wire = PACKED[name]
    assert read(lines, wire, piece_bytes) == PNG


@pytest.mark.parametrize("picture", [PNG, JPEG, WEBP])
@pytest.mark.parametrize(
    "coding", ["identity", "UTF-8", "aws-chunked", "br", "zstd", "none", "gzip", "deflate", ""]
)
@pytest.mark.parametrize("piece_bytes", [1, 10**9])
def test_a_label_that_the_bytes_contradict_changes_nothing(
    picture: bytes, coding: str, piece_bytes: int
) -> None:
    assert read(f"Content-Encoding: {coding}", picture, piece_bytes) == picture


@pytest.mark.parametrize("body", [b"", b"\x1f", b"x", b"short"])
def test_a_body_shorter_than_any_signature_is_decoded(body: bytes) -> None:
    assert read("Content-Encoding: gzip", body) == body


@pytest.mark.parametrize(
    ("coding", "wire"),
    [("gzip", gzip.compress(PNG)), ("deflate", zlib.compress(PNG)), ("deflate", deflate(PNG))],
)
def test_truncated_compressed_data_is_refused(coding: str, wire: bytes) -> None:
    for end in {2, 11, 40, len(wire) // 2, len(wire) - 9, len(wire) - 1}:
        with pytest.raises(UnusableUrl):
            read(f"Content-Encoding: {coding}", wire[:end])


def test_a_second_member_that_is_cut_is_refused() -> None:
    second = gzip.compress(PNG[99:])
    with pytest.raises(UnusableUrl):
        read("Content-Encoding: gzip", gzip.compress(PNG[:99]) + second[:-1], 5)


@pytest.mark.parametrize("at", [3, 20, 200, -6])
def test_damaged_compressed_data_is_refused(at: int) -> None:
    wire = bytearray(gzip.compress(PNG))
    for place in range(at, at + 4):
        wire[place] ^= 0xFF
    with pytest.raises(UnusableUrl):
        read("Content-Encoding: gzip", bytes(wire))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_decompressed_data_of_the_limit_passes_and_a_byte_more_does_not(coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    assert len(read(f"Content-Encoding: {coding}", pack(bytes(LIMIT_BYTES)))) == LIMIT_BYTES
    with pytest.raises(FileSizeTooLarge):
        read(f"Content-Encoding: {coding}", pack(bytes(LIMIT_BYTES + 1)))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_bomb_is_unpacked_in_small_steps_and_no_further_than_the_limit(depth: int) -> None:
    bomb = bytes(50_000_000)
    for _ in range(depth):
        bomb = gzip.compress(bomb)
    codings = ", ".join(["gzip"] * depth)
    head = parse_head(f"HTTP/1.1 200 OK\r\nContent-Encoding: {codings}\r\n\r\n".encode())
    sizes: list[int] = []
    with pytest.raises(FileSizeTooLarge):
        sizes.extend(map(len, unpack(choose_stages(head, LIMIT_BYTES), bomb)))
    assert max(sizes) <= STEP_BYTES
    assert sum(sizes) <= LIMIT_BYTES


def test_more_codings_than_curl_accepts_are_refused() -> None:
    wire = PNG
    for _ in range(MAX_CODINGS):
        wire = gzip.compress(wire)
    assert read("Content-Encoding: " + ", ".join(["gzip"] * MAX_CODINGS), wire) == PNG
    with pytest.raises(UnusableUrl):
        read("Content-Encoding: " + ", ".join(["gzip"] * (MAX_CODINGS + 1)), wire)


def test_an_unknown_transfer_coding_is_refused() -> None:
    with pytest.raises(UnusableUrl):
        read("Transfer-Encoding: br, chunked", PNG)


@pytest.mark.parametrize(
    "unit", [gzip.compress(b""), gzip.compress(b"x" * 100)], ids=["empty", "100 bytes"]
)
def test_twice_the_members_are_twice_the_work(unit: bytes) -> None:
    assert_linear(
        lambda wire: read("Content-Encoding: gzip", wire, 16 * 1024), lambda n: unit * n, 500
    )


def test_data_in_pieces_of_any_size_are_decoded_whole() -> None:
    """Pieces that end just where the unpacked steps do are what a slip here would lose."""
    draw = random.Random(7)
    for size in (STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES):
        data = draw.randbytes(size // 2) + bytes(size - size // 2)
        for pack in (gzip.compress, zlib.compress, deflate):
            wire = pack(data)
            for piece_bytes in (1, len(wire) - 8, len(wire) - 1, len(wire)):
                assert read("Content-Encoding: deflate", wire, piece_bytes) == data
