"""Damage: flipped bits, cuts, spliced heads, numbers that programs trip over."""

from collections.abc import Sequence
from random import Random

from tests.service.image.samples import chunk
from upscaled.image.formats.png.structure import SIGNATURE, iterate_chunks

# Where heads end: most damage goes there, for it is what decides how the rest is read.
_REACHES = (40, 200, 1000)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(seeds: Sequence[bytes], chance: Random) -> bytes:
    """One of `seeds` with up to three kinds of damage done to it."""
    source = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 1, 1, 2, 3))):
        damage = chance.choice((flip_bits, flip_bits, set_number, cut, lose_piece, repeat_piece))
        source = damage(source, chance)
    if chance.random() < 0.1:
        source = splice(source, chance.choice(seeds), chance)
    if source.startswith(SIGNATURE) and chance.random() < 0.5:
        source = repair(source)
    return source


def flip_bits(source: bytes, chance: Random) -> bytes:
    data = bytearray(source)
    for _ in range(chance.choice((1, 1, 1, 2, 8, 64))):
        if data:
            data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(data)


def cut(source: bytes, chance: Random) -> bytes:
    """At a whole percentage."""
    return source[: len(source) * chance.randrange(100) // 100]


def set_number(source: bytes, chance: Random) -> bytes:
    """Two or four bytes, in either order, become a number at some type's edge."""
    data = bytearray(source)
    size = chance.choice((1, 2, 4))
    number = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    if len(data) > size:
        at = min(_place(data, chance), len(data) - size)
        data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
    return bytes(data)


def lose_piece(source: bytes, chance: Random) -> bytes:
    at = _place(source, chance)
    return source[:at] + source[at + chance.randrange(1, 64) :]


def repeat_piece(source: bytes, chance: Random) -> bytes:
    at, start = _place(source, chance), _place(source, chance)
    piece = source[start : start + chance.randrange(1, 64)] * chance.choice((1, 1, 50))
    return source[:at] + piece + source[at:]


def splice(source: bytes, other: bytes, chance: Random) -> bytes:
    """The head of one file before the body of another."""
    at = chance.choice(_REACHES)
    return source[:at] + other[chance.choice((at, 0)) :]


def repair(source: bytes) -> bytes:
    """A PNG with right checksums, so that the damage gets past them."""
    try:
        found = list(iterate_chunks(source))
    except ValueError:
        return source
    pieces = (chunk(each.name, source[each.start : each.start + each.length]) for each in found)
    return SIGNATURE + b"".join(pieces)


def _place(data: bytes | bytearray, chance: Random) -> int:
    reach = chance.choice((*_REACHES, len(data)))
    return chance.randrange(max(1, min(reach, len(data))))
