import math
from typing import Any

import pytest

from upscaled.api.body.scale import parse_scale
from upscaled.errors import InvalidParameter


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", "2.00"])
def test_every_spelling_of_two(value: Any) -> None:
    scale = parse_scale(value)
    assert scale == 2
    assert type(scale) is int


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0"])
def test_every_spelling_of_four(value: Any) -> None:
    assert parse_scale(value) == 4


@pytest.mark.parametrize(
    "value",
    [
        *(0, 1, 3, 5, -2, 8, 2.27, 2.0000001, math.nan, math.inf, -math.inf, 10**400),
        *(True, False, [], [2], {}, {"2": 2}, b"2", b""),
        *(" 2 ", "2 ", " 2", "2\n", "２", "٢", "²", "2.", "2,0", "+2", "02", "2e0", "2x", "x2"),
        *("0x2", "two", "nan", "true", "2.01", "2.5", "3", "22", "2" * 100_000),
    ],
)
def test_anything_else_is_invalid(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="scale must be 2 or 4"):
        parse_scale(value)
