from functools import cache
from random import Random

import pytest

from tests.fuzzing.mutate import cut, flip_bits, mutate, repair, set_number, splice
from tests.fuzzing.seeds import make_seeds
from upscaled.image.formats.png.structure import iterate_chunks

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")


@cache
def seeds() -> dict[str, bytes]:
    return make_seeds()


@pytest.fixture
def png() -> bytes:
    return seeds()["png/64"]


def test_the_same_number_gives_the_same_file() -> None:
    first, again = (
        [mutate(list(seeds().values()), Random(f"7/{number}")) for number in range(50)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 45


def test_each_mutation_changes_the_file(png: bytes) -> None:
    chance = Random(1)
    assert len(cut(png, chance)) < len(png)
    assert any(flip_bits(png, chance) != png for _ in range(3))
    assert any(set_number(png, chance) != png for _ in range(5))
    assert splice(png, seeds()["jpeg/64"], chance)[:8] == png[:8]


def test_files_of_any_length_can_be_mutated(png: bytes) -> None:
    for source in (b"", b"a", png[:9]):
        for number in range(100):
            mutate([source], Random(number))


def test_a_repaired_png_has_right_checksums(png: bytes) -> None:
    damaged = bytearray(png)
    damaged[png.index(b"IDAT") + 9] ^= 1
    assert repair(png) == png
    repaired = repair(bytes(damaged))
    assert repaired != png
    assert [each.name for each in iterate_chunks(repaired)] == [
        each.name for each in iterate_chunks(png)
    ]
