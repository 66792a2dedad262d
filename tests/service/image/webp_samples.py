"""WebP files put together chunk by chunk, as no single program writes them."""

import struct
from collections.abc import Iterable

ICC_FLAG, ALPHA_FLAG, EXIF_FLAG, ANIMATION_FLAG = 0x20, 0x10, 0x08, 0x02

Chunk = tuple[bytes, bytes]


def webp(*chunks: Chunk) -> bytes:
    """Make a file of these chunks, in this order."""
    body = b"WEBP" + join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def join(chunks: Iterable[Chunk]) -> bytes:
    """Join chunks, each padded to an even length."""
    return b"".join(
        name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks
    )


def extended(width_px: int, height_px: int, flags: int) -> Chunk:
    """Make the chunk VP8X."""
    sides = (width_px - 1).to_bytes(3, "little") + (height_px - 1).to_bytes(3, "little")
    return b"VP8X", struct.pack("<I", flags) + sides


def promise(width_px: int, height_px: int) -> bytes:
    """Make a file that declares a canvas, and has only the beginning of its image."""
    return webp(extended(width_px, height_px, 0), (b"VP8L", struct.pack("<BI", 0x2F, 0)))


def frame(left_px: int, top_px: int, width_px: int, height_px: int, *chunks: Chunk) -> Chunk:
    """Make the chunk ANMF; the position is even."""
    numbers = (left_px // 2, top_px // 2, width_px - 1, height_px - 1, 100)
    header = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\x02"
    return b"ANMF", header + join(chunks)


def chunks_of(source: bytes) -> dict[bytes, bytes]:
    """Map the names of a still image's chunks to their data."""
    found: dict[bytes, bytes] = {}
    at = 12
    while at < len(source):
        name, length = struct.unpack_from("<4sI", source, at)
        found[name] = source[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return found
