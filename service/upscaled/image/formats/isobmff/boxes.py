"""Read the boxes that describe the primary image of an AVIF or HEIC file, without a decoder.

The image is the primary item of the `meta` box (ISO/IEC 14496-12); its size, crop, rotation and
colours are properties of items (ISO/IEC 23008-12).
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from upscaled.image.formats.isobmff.transforms import (
    TRANSFORMS,
    Transform,
    read_transform,
    transformed_size,
)
from upscaled.image.types import Header

# A phone's image in tiles has some 60 items and 200 boxes.
_MAX_BOXES: Final = 20_000
_ALPHA: Final = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
# One for each version, 0 and 1, and each value of its flags, 0 and 1 (ISO/IEC 23008-12, 9.3).
_MAX_ASSOCIATION_BOXES: Final = 4
# An image has one of each kind at most (MIAF, ISO/IEC 23000-22). Fractions cost 30 us each.
_MAX_TRANSFORMS: Final = 16
_LONGEST_ALPHA_BYTES: Final = max(map(len, _ALPHA))
FULL_BOX_BYTES: Final = 4
"""Version and flags, with which a full box begins (ISO/IEC 14496-12, 4.2)."""
_AUXILIARY, _DERIVED_FROM = b"auxl", b"dimg"


@dataclass(frozen=True, slots=True)
class Still:
    """Primary image: size as coded, transforms, transparency, colours.

    `meta` describes all items. `transforms` are in the order of the file. `has_alpha` is an alpha
    image of its own, `tiles_have_alpha` one for each tile of a grid. `cicp` is the primaries' and
    the transfer curve's code of a `colr` box of type nclx (ITU-T H.273), None without one.
    """

    meta: "Meta"
    width_px: int
    height_px: int
    transforms: tuple[Transform, ...]
    has_alpha: bool
    tiles_have_alpha: bool
    cicp: tuple[int, int] | None

    def to_header(
        self, format_name: str, transforms: Sequence[Transform], *, has_alpha: bool
    ) -> Header:
        """Make the header of the image after its transforms, applied in this order."""
        size = transformed_size(self.width_px, self.height_px, transforms)
        is_cropped = any(each.crop for each in transforms)
        decoded_pixels = self.width_px * self.height_px if is_cropped else 0
        return Header(format_name, *size, has_alpha, decoded_pixels=decoded_pixels, parts=self)


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its type and its content."""

    name: bytes
    body: memoryview


@dataclass(frozen=True, slots=True)
class Meta:
    """Boxes of the `meta` box by type, and its descriptions of items.

    `parts` are the items that an item is derived from (a grid's tiles, row by row), `alphas` those
    that hold its transparency.
    """

    boxes: dict[bytes, memoryview]
    primary: int
    properties: dict[int, list[Box]]
    parts: dict[int, list[int]]
    alphas: dict[int, list[int]]


class BoxReader:
    """Reads the big-endian numbers in a box, one after the other."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def read(self, length_bytes: int) -> int:
        """Read a number."""
        end = self._at + length_bytes
        if end > len(self._body):
            raise ValueError("a box is cut short")
        value = int.from_bytes(self._body[self._at : end], "big")
        self._at = end
        return value

    def read_version(self) -> int:
        """Read the version that a full box begins with, and pass its flags over."""
        return self.read(FULL_BOX_BYTES) >> 24


def read_still(source: bytes) -> Still:
    """Read what the boxes say of the primary image."""
    meta = read_meta(source)
    own = meta.properties.get(meta.primary, [])
    size = BoxReader(next(box.body for box in own if box.name == b"ispe"))
    size.read_version()
    tiles = meta.parts.get(meta.primary, [])
    transforms = [box for box in own if box.name in TRANSFORMS]
    if len(transforms) > _MAX_TRANSFORMS:
        raise ValueError(f"more than {_MAX_TRANSFORMS} transforms")
    return Still(
        meta=meta,
        width_px=size.read(4),
        height_px=size.read(4),
        transforms=tuple(read_transform(box.name, box.body) for box in transforms),
        has_alpha=meta.primary in meta.alphas,
        tiles_have_alpha=bool(tiles) and all(tile in meta.alphas for tile in tiles),
        cicp=next((code for box in own if (code := _read_nclx(box)) is not None), None),
    )


def read_meta(source: bytes | bytearray) -> Meta:
    """Read the `meta` box of a file."""
    found = next(box for box in iter_boxes(memoryview(source)) if box.name == b"meta")
    boxes = {box.name: box.body for box in iter_boxes(found.body[FULL_BOX_BYTES:])}
    if not boxes.keys() >= {b"pitm", b"iprp"}:
        raise ValueError("no box of the primary item, or of properties")
    primary, properties = BoxReader(boxes[b"pitm"]), _read_properties(boxes[b"iprp"])
    version = primary.read_version()
    parts: dict[int, list[int]] = {}
    alphas: dict[int, list[int]] = {}
    hold_alpha = {item for item, own in properties.items() if any(map(_is_alpha, own))}
    for name, item, target in _iter_references(boxes.get(b"iref", memoryview(b""))):
        if name == _DERIVED_FROM:
            parts.setdefault(item, []).append(target)
        elif name == _AUXILIARY and item in hold_alpha:
            alphas.setdefault(target, []).append(item)
    return Meta(
        boxes=boxes,
        primary=primary.read(4 if version else 2),
        properties=properties,
        parts=parts,
        alphas=alphas,
    )


def iter_boxes(space: memoryview) -> Iterator[Box]:
    """Iterate over the boxes that fill `space`."""
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > len(space):
            return
        length, name = struct.unpack_from(">I4s", space, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", space, start)
            start += 8
        end = len(space) if length == 0 else at + length
        if not start <= end <= len(space):
            raise ValueError(f"box {name!r} of {length} bytes")
        yield Box(name, space[start:end])
        at = end
    raise ValueError(f"more than {_MAX_BOXES} boxes")


def _read_properties(body: memoryview) -> dict[int, list[Box]]:
    """Read each item's properties: `ipco` lists them, `ipma` associates them with items."""
    found: dict[int, list[Box]] = {}
    boxes = list(iter_boxes(body))
    listed = list(iter_boxes(next(box.body for box in boxes if box.name == b"ipco")))
    lists = [box.body for box in boxes if box.name == b"ipma"]
    if len(lists) > _MAX_ASSOCIATION_BOXES:
        raise ValueError(f"more than {_MAX_ASSOCIATION_BOXES} boxes of associations")
    associations = chain.from_iterable(map(_iter_associations, lists))
    for count, (item, number) in enumerate(associations):
        if count == _MAX_BOXES:
            raise ValueError(f"more than {_MAX_BOXES} associations")
        if 0 < number <= len(listed):
            found.setdefault(item, []).append(listed[number - 1])
    return found


def _iter_associations(body: memoryview) -> Iterator[tuple[int, int]]:
    fields = BoxReader(body)
    version = fields.read_version()
    number_bytes = 1 + (body[3] & 1)  # by the lowest of its flags
    is_essential = 0x80 << 8 * (number_bytes - 1)
    for _ in range(min(fields.read(4), _MAX_BOXES)):
        item = fields.read(4 if version else 2)
        for _ in range(fields.read(1)):
            yield item, fields.read(number_bytes) & ~is_essential


def _iter_references(body: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over references: type, the item that refers, and the one that it refers to."""
    if not body:
        return
    id_bytes = 4 if body[0] else 2
    total = 0
    for box in iter_boxes(body[FULL_BOX_BYTES:]):
        fields = BoxReader(box.body)
        item, count = fields.read(id_bytes), fields.read(2)
        total += count
        if total > _MAX_BOXES:
            raise ValueError(f"more than {_MAX_BOXES} references")
        for _ in range(count):
            yield box.name, item, fields.read(id_bytes)


def _is_alpha(box: Box) -> bool:
    """Return whether a property says that its item is an image of alpha."""
    start = bytes(box.body[FULL_BOX_BYTES : FULL_BOX_BYTES + _LONGEST_ALPHA_BYTES])
    return box.name == b"auxC" and start.startswith(_ALPHA)


def _read_nclx(box: Box) -> tuple[int, int] | None:
    """Read the codes of primaries and transfer that a box states (ISO/IEC 14496-12, 12.1.5)."""
    if box.name != b"colr" or bytes(box.body[:4]) != b"nclx":
        return None
    primaries, transfer = struct.unpack_from(">HH", box.body, 4)
    return primaries, transfer
