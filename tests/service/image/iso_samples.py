"""AVIF and HEIC files put together box by box, as no single program writes them."""

import struct
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from tests.service.image.samples import save
from upscaled.image.formats.isobmff.boxes import iter_boxes, read_meta
from upscaled.image.formats.isobmff.items import iterate_kinds, read_extents

TRANSFORMS = (b"clap", b"irot", b"imir")
BRANDS = {"AVIF": b"avif", "HEIC": b"heic"}


def box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def full_box(name: bytes, version: int, *parts: bytes) -> bytes:
    return box(name, bytes((version, 0, 0, 0)), *parts)


def clap(width: int, height: int, right: int = 0, below: int = 0, parts: int = 1) -> bytes:
    """Make a crop; all four numbers are in `parts` of a pixel."""
    numbers = (width, parts, height, parts, right, parts, below, parts)
    return box(b"clap", struct.pack(">IIIIiIiI", *numbers))


def irot(quarter_turns: int) -> bytes:
    return box(b"irot", bytes((quarter_turns,)))


def imir(axis: int) -> bytes:
    return box(b"imir", bytes((axis,)))


def nclx(primaries: int, transfer: int, matrix: int = 6) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, 0x80))


def icc_box(profile: bytes) -> bytes:
    return box(b"colr", b"prof", profile)


def ispe(width: int, height: int) -> bytes:
    return full_box(b"ispe", 0, struct.pack(">II", width, height))


@dataclass(frozen=True)
class Item:
    """Item of a file: its kind, its data, its property boxes in order, and what it refers to."""

    kind: bytes
    data: bytes
    properties: tuple[bytes, ...]
    refers_to: dict[bytes, list[int]] = field(default_factory=dict)

    def with_properties(self, *further: bytes, without: tuple[bytes, ...] = ()) -> "Item":
        kept = tuple(each for each in self.properties if each[4:8] not in without)
        return replace(self, properties=(*kept, *further))


def items_of(source: bytes) -> list[Item]:
    """List the items of a file numbered 1, 2, 3 ..., the first of them the primary one."""
    meta = read_meta(source)
    extents = read_extents(source, meta)
    kinds = dict(iterate_kinds(meta))
    found: list[Item] = []
    for number in range(1, len(kinds) + 1):
        targets = [item for item, own in meta.alphas.items() if number in own]
        refers_to = {b"auxl": targets, b"dimg": meta.parts.get(number, [])}
        found.append(
            Item(
                bytes(kinds[number]),
                b"".join(extents[number]),
                tuple(box(each.name, bytes(each.body)) for each in meta.properties[number]),
                {name: to for name, to in refers_to.items() if to},
            )
        )
    return found


def grid(rows: int, columns: int, width: int, height: int, *tiles: int) -> Item:
    """Make an image of other items, row by row."""
    data = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    return Item(b"grid", data, (ispe(width, height),), {b"dimg": list(tiles)})


def build(items: list[Item], *, brand: bytes = b"avif", idat: bool = False) -> bytes:
    """Make a file whose items are numbered from 1, the first of them the primary one.

    idat: the data lie in the `meta` box instead of behind it.
    """
    listed = list(dict.fromkeys(each for item in items for each in item.properties))
    method = 1 if idat else 0

    def meta(data_at: int) -> bytes:
        places, at = [], data_at
        for item in items:
            places.append((at, len(item.data)))
            at += len(item.data)
        iloc = struct.pack(">HH", 0x4400, len(items)) + b"".join(
            struct.pack(">HHHHII", number, method, 0, 1, start, length)
            for number, (start, length) in enumerate(places, 1)
        )
        infos = b"".join(
            full_box(b"infe", 2, struct.pack(">HH4s", number, 0, item.kind), b"\0")
            for number, item in enumerate(items, 1)
        )
        references = b"".join(
            box(name, struct.pack(f">HH{len(to)}H", number, len(to), *to))
            for number, item in enumerate(items, 1)
            for name, to in item.refers_to.items()
        )
        associations = b"".join(
            struct.pack(">HB", number, len(item.properties))
            + bytes(
                listed.index(each) + 1 | (0x80 if each[4:8] in TRANSFORMS else 0)
                for each in item.properties
            )
            for number, item in enumerate(items, 1)
        )
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", 1)),
            full_box(b"iloc", 1, iloc),
            full_box(b"iinf", 0, struct.pack(">H", len(items)), infos),
            full_box(b"iref", 0, references) if references else b"",
            box(
                b"iprp",
                box(b"ipco", *listed),
                full_box(b"ipma", 0, struct.pack(">I", len(items)), associations),
            ),
            box(b"idat", *(item.data for item in items)) if idat else b"",
        )

    head = box(b"ftyp", brand, bytes(4), b"mif1miaf", brand)
    if idat:
        return head + meta(0)
    data_at = len(head) + len(meta(0)) + 8
    return head + meta(data_at) + box(b"mdat", *(item.data for item in items))


def encode_avif(pixels: NDArray[np.uint8], **options: object) -> bytes:
    return save(pixels, "AVIF", **{"quality": 100, "subsampling": "4:4:4", "speed": 9, **options})


def encode_heic(pixels: NDArray[np.uint8], **options: object) -> bytes:
    from pillow_heif import from_bytes

    file = BytesIO()
    height, width = pixels.shape[:2]
    mode = "L" if pixels.ndim == 2 else {3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    image = from_bytes(mode, (width, height), pixels.tobytes())
    image.save(file, **{"quality": -1, "chroma": 444, **options})
    return file.getvalue()


def encode(kind: str, pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels with little loss, as "AVIF" or "HEIC"."""
    return encode_avif(pixels) if kind == "AVIF" else encode_heic(pixels)


def mdat_at(source: bytes) -> int:
    """Find where the data of a file begin."""
    at = 0
    for each in iter_boxes(memoryview(source)):
        if each.name == b"mdat":
            return at + 8
        at += 8 + len(each.body)
    raise ValueError("no data")
