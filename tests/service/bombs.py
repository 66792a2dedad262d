"""More than a hundred small files that declare, or unpack to, more than any memory holds."""

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from tests.service.image.samples import GREY, RGB, chunk, picture, png, save

SIDES = (10_001, 14_000, 16_383, 20_000, 30_000, 65_500)
HUGE_SIDES = (100_000, 2**31 - 1)
SWOLLEN_BYTES = 100_000_000
SMALL = np.zeros((64, 64, 3), np.uint16)


def make_bombs() -> dict[str, bytes]:
    """Every bomb by its name; none is larger than 8 MB."""
    kinds: tuple[Callable[[], Iterator[tuple[str, bytes]]], ...] = (
        *(png_sizes, gifs, webps, tiffs, tiff_tags, iso_media, jpegs, bmps, icons),
    )
    return {name: source for kind in kinds for name, source in kind()}


def png_sizes() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(5_000_000))
    for side in (*SIDES, *HUGE_SIDES):
        for colour, bits in ((RGB, 8), (GREY, 1), (4, 8), (6, 16)):
            header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
            parts = chunk(b"IHDR", header) + chunk(b"IDAT", zeros) + chunk(b"IEND", b"")
            yield f"png {side} of colour {colour}", b"\x89PNG\r\n\x1a\n" + parts


def make_swelling() -> dict[str, bytes]:
    """Sound pictures beside text and profiles of zeros that would swell a thousandfold."""
    zeros = zlib.compress(bytes(SWOLLEN_BYTES))
    bodies = {
        b"zTXt": b"a\x00\x00",
        b"iCCP": b"a\x00\x00",
        b"iTXt": b"a\x00\x01\x00\x00\x00",
    }
    return {
        f"{count} {name.decode()}": png(SMALL, 8, RGB, before=chunk(name, start + zeros) * count)
        for name, start in bodies.items()
        for count in (1, 2, 20)
    }


def gifs() -> Iterator[tuple[str, bytes]]:
    small = save(picture(64, 64, 1)[..., 0].copy(), "GIF")
    for side in (*SIDES, 65_535):
        for version in (b"GIF87a", b"GIF89a"):
            yield (
                f"{version.decode()} {side}",
                version + struct.pack("<HH", side, side) + small[10:],
            )


def webps() -> Iterator[tuple[str, bytes]]:
    for side in (10_001, 12_000, 14_000, 16_383):
        lossy = bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(20)
        lossless = b"\x2f" + struct.pack("<I", side - 1 | side - 1 << 14) + bytes(20)
        canvas = bytes(4) + struct.pack("<I", side - 1)[:3] * 2
        for name, body in ((b"VP8 ", lossy), (b"VP8L", lossless), (b"VP8X", canvas)):
            data = b"WEBP" + name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
            yield f"{name.decode()} {side}", b"RIFF" + struct.pack("<I", len(data)) + data


def tiff(order: str, entries: list[tuple[int, int, int, int]]) -> bytes:
    """One directory of (tag, kind, count, value or place)."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    packed = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return start + struct.pack(f"{order}IH", 8, len(entries)) + packed + bytes(4)


def tiffs() -> Iterator[tuple[str, bytes]]:
    for side in (*SIDES, *HUGE_SIDES):
        for order in "<>":
            entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 4, 1, 1), (259, 4, 1, 5)]
            yield f"tiff {order} {side}", tiff(order, [*entries, (273, 4, 1, 8)])


def tiff_tags() -> Iterator[tuple[str, bytes]]:
    """A small picture in a million strips, and tags without end."""
    size = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 4, 1, 8), (262, 4, 1, 1)]
    for tag, kind in ((273, 4), (279, 4), (33_000, 12)):
        yield f"tiff numbers {tag}", tiff("<", [*size, (tag, kind, 500_000, 8)]) + bytes(4_000_000)


def iso_media() -> Iterator[tuple[str, bytes]]:
    small = save(picture(64, 64), "AVIF")
    at = small.index(b"ispe") + 8
    for side in (*SIDES, *HUGE_SIDES):
        huge = small[:at] + struct.pack(">II", side, side) + small[at + 8 :]
        yield f"avif {side}", huge
        yield f"heic {side}", huge.replace(b"avif", b"heic").replace(b"av01", b"hvc1")
    deep = b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + struct.pack(">I4s", 8_000_016, b"meta")
    yield "avif of a million boxes", deep + bytes(8) + b"\0\0\0\x08free" * 1_000_000


def jpegs() -> Iterator[tuple[str, bytes]]:
    small = save(picture(64, 64), "JPEG")
    at = small.index(b"\xff\xc0") + 5
    for side in (10_001, 14_000, 20_000, 30_000, 65_500):
        yield f"jpeg {side}", small[:at] + struct.pack(">HH", side, side) + small[at + 4 :]
    progressive = save(picture(64, 64), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield "jpeg of scans", progressive[:-2] + scan * (5_000_000 // len(scan)) + b"\xff\xd9"
    yield "jpeg of segments", small[:2] + b"\xff\xe1\x00\x02" * 1_000_000 + small[2:]


def bmps() -> Iterator[tuple[str, bytes]]:
    small = save(picture(64, 64), "BMP")
    for side in (10_001, 20_000, 65_500, 2**31 - 1):
        yield f"bmp {side}", small[:18] + struct.pack("<II", side, side) + small[26:]


def icons() -> Iterator[tuple[str, bytes]]:
    body = dict(png_sizes())["png 20000 of colour 2"]
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(body), 22)
    yield "ico 20000", b"\0\0\1\0\1\0" + entry + body
