"""Find the first image of a WebP file (RFC 9649) by its chunks, without libwebp.

What counts is the bitstream: whether there is transparency is said by an ALPH chunk or by the bit
in VP8L's own header, and not by the flag in VP8X, which programs often set wrongly. The
decoder gets a file of the first image alone, whose flags say what is in it.

The size is read without libwebp, which would allocate the whole canvas, twice, before it
reported the size: 2 GB for the largest.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_VP8_START_CODE: Final = b"\x9d\x01\x2a"
_VP8L_SIGNATURE: Final = 0x2F
_SIDE_MASK: Final = (1 << 14) - 1
# RFC 9649, 2.7.1: the flags of VP8X.
_ICC_FLAG, _ALPHA_FLAG, _EXIF_FLAG, _ANIMATION_FLAG = 0x20, 0x10, 0x08, 0x02
_METADATA_FLAGS: Final[Mapping[bytes, int]] = {b"ICCP": _ICC_FLAG, b"EXIF": _EXIF_FLAG}
_BITSTREAMS: Final = frozenset({b"VP8 ", b"VP8L"})
_FIRST_CHUNKS: Final = _BITSTREAMS | {b"VP8X", b"ALPH"}
_VP8X_BYTES: Final = 10
_FIRST_CHUNK_AT: Final = 12
# RFC 9649, 2.7.1.1: position, size, duration and flags of a frame, before its chunks.
_FRAME_HEADER_BYTES: Final = 16
_ANIM_BYTES: Final = 6
# A still image has six chunks, an animation one for each frame and some.
_MAX_CHUNKS: Final = 20_000


@dataclass(frozen=True, slots=True)
class FirstImage:
    """Chunks of the first image, each without its name and length.

    canvas_px: what is shown.
    size_px: what the bitstream holds: less, of a frame that leaves some of its canvas free.
    kind: the chunk of the bitstream, `VP8 ` or `VP8L`.
    bitstream: the data of that chunk.
    alpha: the data of ALPH; None without one, and for VP8L, which has alpha of its own.
    frame_header: that of an animation's first frame, None for a still image.
    metadata: ICCP and EXIF, where VP8X announces them.
    """

    canvas_px: tuple[int, int]
    size_px: tuple[int, int]
    kind: bytes
    bitstream: memoryview
    alpha: memoryview | None
    frame_header: bytes | None
    metadata: Mapping[bytes, bytes]

    @property
    def has_alpha(self) -> bool:
        """Return whether the image can be transparent; what a frame leaves of its canvas is."""
        if self.frame_header is not None and self.frame_header[:12] != bytes(6) + self._sides:
            return True
        if self.kind == b"VP8L":
            return _read_lossless(self.bitstream)[2]
        return self.alpha is not None

    @property
    def _sides(self) -> bytes:
        return b"".join((side - 1).to_bytes(3, "little") for side in self.canvas_px)

    def to_file(self) -> bytes:
        """Make a WebP file of this image alone: a still one, or an animation of one frame."""
        flags = _ALPHA_FLAG if self.has_alpha else 0
        for name in self.metadata:
            flags |= _METADATA_FLAGS[name]
        parts = [] if self.alpha is None else [_chunk(b"ALPH", self.alpha)]
        parts.append(_chunk(self.kind, self.bitstream))
        if self.frame_header is not None:
            flags |= _ANIMATION_FLAG
            frame = b"".join((self.frame_header, *parts))
            parts = [_chunk(b"ANIM", bytes(_ANIM_BYTES)), _chunk(b"ANMF", frame)]
        extended = _chunk(b"VP8X", struct.pack("<I", flags) + self._sides)
        metadata = {name: _chunk(name, data) for name, data in self.metadata.items()}
        icc, exif = metadata.get(b"ICCP", b""), metadata.get(b"EXIF", b"")
        body = b"".join((b"WEBP", extended, icc, *parts, exif))
        return b"RIFF" + struct.pack("<I", len(body)) + body


def read_first_image(source: bytes) -> FirstImage:
    """Read the first image of a whole file."""
    (riff_bytes,) = struct.unpack_from("<I", source, 4)
    if riff_bytes + 8 > len(source):
        raise ValueError("cut short")
    space = memoryview(source)[: riff_bytes + 8]
    kind, data = next(_iter_chunks(space, _FIRST_CHUNK_AT), (b"", space[:0]))
    if kind not in _FIRST_CHUNKS:
        raise ValueError(f"first chunk {kind!r}")
    canvas_px, flags = _read_extended(data) if kind == b"VP8X" else (None, 0)
    wanted = {name for name, flag in _METADATA_FLAGS.items() if flags & flag}
    frame_header, chunks, metadata = _collect(space, wanted)
    bitstream_kind = next(name for name in chunks if name in _BITSTREAMS)
    bitstream = chunks[bitstream_kind]
    # Both readers are called for their check that there is an image in the bitstream's header.
    is_lossless = bitstream_kind == b"VP8L"
    size_px = _read_lossless(bitstream)[:2] if is_lossless else _read_lossy(bitstream)
    return FirstImage(
        canvas_px=canvas_px or size_px,
        size_px=size_px,
        kind=bitstream_kind,
        bitstream=bitstream,
        alpha=chunks.get(b"ALPH") if bitstream_kind == b"VP8 " else None,
        frame_header=frame_header,
        metadata=metadata,
    )


def find_xmp(source: bytes) -> bytes:
    """Find the XMP packet of a file whose image can be read; b"" where nothing leads to it."""
    with suppress(ValueError):
        for name, data in _iter_chunks(memoryview(source), _FIRST_CHUNK_AT):
            if name == b"XMP ":
                return bytes(data)
    return b""


def _collect(
    space: memoryview, wanted: set[bytes]
) -> tuple[bytes | None, dict[bytes, memoryview], dict[bytes, bytes]]:
    """Collect the first image's frame header, if any, its chunks, and those that are `wanted`.

    Reading ends with the image, or with the last of what is wanted behind it.
    """
    frame_header: bytes | None = None
    chunks: dict[bytes, memoryview] = {}
    metadata: dict[bytes, bytes] = {}
    for name, data in _iter_chunks(space, _FIRST_CHUNK_AT):
        has_image = not _BITSTREAMS.isdisjoint(chunks)
        if has_image and metadata.keys() == wanted:
            break
        if name in wanted:
            metadata.setdefault(name, bytes(data))
        elif has_image:
            continue
        elif name == b"ANMF" and not chunks:
            frame_header = bytes(data[:_FRAME_HEADER_BYTES])
            chunks = _collect_frame(data)
        elif name in _BITSTREAMS or name == b"ALPH":
            chunks.setdefault(name, data)
    if _BITSTREAMS.isdisjoint(chunks):
        raise ValueError("no image")
    return frame_header, chunks, metadata


def _collect_frame(frame: memoryview) -> dict[bytes, memoryview]:
    """Collect the chunks of a frame up to its bitstream."""
    chunks: dict[bytes, memoryview] = {}
    for name, data in _iter_chunks(frame, _FRAME_HEADER_BYTES):
        if name in _BITSTREAMS or name == b"ALPH":
            chunks.setdefault(name, data)
        if name in _BITSTREAMS:
            return chunks
    raise ValueError("a frame without an image")


def _read_extended(body: memoryview) -> tuple[tuple[int, int], int]:
    """Read canvas size and flags (RFC 9649, 2.7.1): three bytes for each side less one."""
    if len(body) < _VP8X_BYTES:
        raise ValueError("a short VP8X")
    width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    return (width, height), body[0]


def _read_lossless(body: memoryview) -> tuple[int, int, bool]:
    """Read size and alpha (RFC 9649, 3.4): a signature, 14 bits for each side less one, a flag."""
    signature, bits = struct.unpack_from("<BI", body)
    if signature != _VP8L_SIGNATURE:
        raise ValueError("no lossless image")
    return (bits & _SIDE_MASK) + 1, (bits >> 14 & _SIDE_MASK) + 1, bool(bits >> 28 & 1)


def _read_lossy(body: memoryview) -> tuple[int, int]:
    """Read the size: behind the start code, 14 bits for each side (RFC 6386, 9.1)."""
    if bytes(body[3:6]) != _VP8_START_CODE:
        raise ValueError("no key frame")
    width, height = struct.unpack_from("<HH", body, 6)
    return width & _SIDE_MASK, height & _SIDE_MASK


def _iter_chunks(space: memoryview, at: int) -> Iterator[tuple[bytes, memoryview]]:
    """Iterate over names and data of chunks; the last one's padding byte may be missing."""
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(space):
            return
        name, length = struct.unpack_from("<4sI", space, at)
        if at + 8 + length > len(space):
            raise ValueError(f"chunk {name!r} is cut short")
        yield name, space[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    raise ValueError(f"more than {_MAX_CHUNKS} chunks")


def _chunk(name: bytes, data: bytes | memoryview) -> bytes:
    return b"".join((name, struct.pack("<I", len(data)), data, bytes(len(data) % 2)))
