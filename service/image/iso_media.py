"""What the head of an AVIF or HEIC file tells, read without either decoder.

Both are ISO base media files (ISO/IEC 14496-12): boxes in boxes. The picture is the primary item
of the `meta` box; its size, its turns and what it goes with are properties of items (ISO/IEC
23008-12). Nothing is decoded and no picture byte is touched.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A phone's picture in tiles has some 60 items and 200 boxes.
_MAX_BOXES: Final = 20_000
_ALPHA: Final = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
_FULL_BOX_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Still:
    """The primary picture: stored size, crop (`clap`, None without), turn, transparency."""

    width_px: int
    height_px: int
    crop_px: tuple[int, int] | None
    is_turned: bool
    has_alpha: bool


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    body: memoryview


@dataclass(frozen=True, slots=True)
class _Meta:
    """The three boxes of `meta` that matter: primary item, properties by item, references."""

    primary: int
    properties: dict[int, list[_Box]]
    alphas_of: dict[int, set[int]]


def read_still(source: bytes) -> Still:
    """The primary picture's facts.

    Raises:
        ValueError, struct.error, StopIteration: the boxes are broken, or there is no such picture.
    """
    boxes = iter_boxes(memoryview(source))
    meta = _read_meta(next(box for box in boxes if box.name == b"meta").body)
    own = meta.properties.get(meta.primary, [])
    size = next(box.body for box in own if box.name == b"ispe")
    width, height = struct.unpack_from(">II", size, _FULL_BOX_BYTES)
    turns = [box.body[0] & 3 for box in own if box.name == b"irot"]
    crops = [box.body for box in own if box.name == b"clap"]
    auxiliaries = meta.alphas_of.get(meta.primary, set())
    return Still(
        width_px=width,
        height_px=height,
        crop_px=_read_crop(crops[0]) if crops else None,
        is_turned=sum(turns) % 2 == 1,
        has_alpha=any(_is_alpha(meta.properties.get(item, [])) for item in auxiliaries),
    )


def iter_boxes(space: memoryview) -> Iterator[_Box]:
    """The boxes that fill `space`.

    Raises:
        ValueError: a length that cannot be, or too many.
    """
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
        yield _Box(name, space[start:end])
        at = end
    raise ValueError(f"more than {_MAX_BOXES} boxes")


def _read_meta(body: memoryview) -> _Meta:
    boxes = {box.name: box.body for box in iter_boxes(body[_FULL_BOX_BYTES:])}
    try:
        primary, properties = boxes[b"pitm"], boxes[b"iprp"]
    except KeyError as error:
        raise ValueError(f"no box {error}") from error
    return _Meta(
        primary=_read_item(primary, _FULL_BOX_BYTES, is_wide=primary[0] > 0),
        properties=_read_properties(properties),
        alphas_of=_read_auxiliaries(boxes[b"iref"]) if b"iref" in boxes else {},
    )


def _read_item(space: memoryview, at: int, *, is_wide: bool) -> int:
    (item,) = struct.unpack_from(">I" if is_wide else ">H", space, at)
    return int(item)


def _read_properties(body: memoryview) -> dict[int, list[_Box]]:
    """Every item's properties: `ipco` lists them, `ipma` says whose they are."""
    found: dict[int, list[_Box]] = {}
    boxes = list(iter_boxes(body))
    listed = [each for box in boxes if box.name == b"ipco" for each in iter_boxes(box.body)]
    for box in boxes:
        if box.name == b"ipma":
            for item, number in _iter_associations(box.body):
                if 0 < number <= len(listed):
                    found.setdefault(item, []).append(listed[number - 1])
    return found


def _iter_associations(body: memoryview) -> Iterator[tuple[int, int]]:
    is_wide, has_long_numbers = body[0] > 0, bool(body[3] & 1)
    (count,) = struct.unpack_from(">I", body, _FULL_BOX_BYTES)
    at = _FULL_BOX_BYTES + 4
    for _ in range(min(count, _MAX_BOXES)):
        item = _read_item(body, at, is_wide=is_wide)
        at += 4 if is_wide else 2
        own = body[at]
        at += 1
        for _ in range(own):
            number = int.from_bytes(body[at : at + 1 + has_long_numbers], "big")
            at += 1 + has_long_numbers
            yield item, number & (0x7FFF if has_long_numbers else 0x7F)


def _read_auxiliaries(body: memoryview) -> dict[int, set[int]]:
    """Which items are auxiliary to an item."""
    auxiliaries: dict[int, set[int]] = {}
    is_wide = body[0] > 0
    step = 4 if is_wide else 2
    for box in iter_boxes(body[_FULL_BOX_BYTES:]):
        if box.name != b"auxl":
            continue
        item = _read_item(box.body, 0, is_wide=is_wide)
        (count,) = struct.unpack_from(">H", box.body, step)
        for at in range(step + 2, step + 2 + count * step, step):
            auxiliaries.setdefault(_read_item(box.body, at, is_wide=is_wide), set()).add(item)
    return auxiliaries


def _is_alpha(properties: list[_Box]) -> bool:
    return any(
        box.name == b"auxC" and bytes(box.body[_FULL_BOX_BYTES:]).startswith(_ALPHA)
        for box in properties
    )


def _read_crop(body: memoryview) -> tuple[int, int]:
    """Width and height of the clean aperture, rounded; the crop's place does not matter here."""
    across, across_parts, down, down_parts = struct.unpack_from(">IIII", body)
    if not across_parts or not down_parts:
        raise ValueError("a crop divided by zero")
    return round(across / across_parts), round(down / down_parts)
