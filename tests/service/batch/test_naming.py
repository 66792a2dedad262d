from itertools import islice

import pytest

from service.batch.naming import candidate_names


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
