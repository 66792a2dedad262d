from random import Random

import pytest

from tests.fuzzing.mutate import cut, flip_bits, mutate, repair, set_number, splice
from tests.fuzzing.seeds import make_seeds
from upscaled.image.formats.png.structure import iterate_chunks

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")
SEEDS = make_seeds()
PNG = SEEDS["png/64"]


def test_the_same_number_gives_the_same_file() -> None:
    first, again = (
        [mutate(list(SEEDS.values()), Random(f"7/{number}")) for number in range(50)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 45


def test_damage_is_done() -> None:
    chance = Random(1)
    assert len(cut(PNG, chance)) < len(PNG)
    assert any(flip_bits(PNG, chance) != PNG for _ in range(3))
    assert any(set_number(PNG, chance) != PNG for _ in range(5))
    assert splice(PNG, SEEDS["jpeg/64"], chance)[:8] == PNG[:8]


def test_nothing_is_too_short_to_be_damaged() -> None:
    for source in (b"", b"a", PNG[:9]):
        for number in range(100):
            mutate([source], Random(number))


def test_a_repaired_png_has_right_checksums() -> None:
    damaged = bytearray(PNG)
    damaged[PNG.index(b"IDAT") + 9] ^= 1
    assert repair(PNG) == PNG
    repaired = repair(bytes(damaged))
    assert repaired != PNG
    assert [each.name for each in iterate_chunks(repaired)] == [
        each.name for each in iterate_chunks(PNG)
    ]
