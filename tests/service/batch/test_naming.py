import os
from itertools import islice

import pytest

from upscaled.batch.naming import candidate_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", ["a-x4.jpg", "a.png-x4.jpg", "a.png-2-x4.jpg", "a.png-3-x4.jpg"]),
        ("plain", ["plain-x4.jpg", "plain-2-x4.jpg"]),
        ("a.b.png", ["a.b-x4.jpg", "a.b.png-x4.jpg"]),
        (".png", [".png-x4.jpg", ".png-2-x4.jpg"]),
    ],
)
def test_a_name_that_is_taken_gives_way_to_longer_ones(name: str, expected: list[str]) -> None:
    assert list(islice(candidate_names(name, 4, "jpg"), len(expected))) == expected


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "\U0001f642", "\udcff", os.fsdecode(b"\x80")])
@pytest.mark.parametrize("length", [240, 247, 248, 249, 250, 251])
def test_no_name_is_longer_than_a_name_may_be(letter: str, length: int) -> None:
    """It is cut between characters, and what differs only behind the cut stays apart."""
    bytes_each = len(os.fsencode(letter))
    stem = letter * (length // bytes_each)
    sources = [f"{stem}.png", f"{stem[:-1]}y.png", f"{stem}.jpg"]
    results = [list(islice(candidate_names(source, 4, "jpg"), 4)) for source in sources]

    for names in results:
        assert len(set(names)) == 4
        for name in names:
            assert len(os.fsencode(name)) <= 255
            assert name.endswith("-x4.jpg")
            assert letter.encode(errors="ignore") == b"" or name.encode(), "no letter is cut in two"
    assert results[0][0] != results[1][0]
    assert not set(results[0][1:]) & set(results[2][1:])
    if length <= 248:
        assert results[0][0] == f"{stem}-x4.jpg"
