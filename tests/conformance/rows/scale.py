# ruff: noqa: E501 - a row of the table is a line
"""Rows of accepted and refused spellings of `scale`."""

from typing import Any

from tests.conformance.table import AT_ONCE_S, SOURCE, Refused, Row, Upscaled, form, json_body

LINE = (
    'scale: 2 or 4, required. JSON number or text: 2, 2.0, "2" are accepted; true, 1, 3, 2.27, NaN, '
    '[], " 2 ", full-width digits are invalid_parameter; absent, null or "" is missing_parameter'
)
BAD = Refused("invalid_parameter", ("scale",), within_s=AT_ONCE_S)

TAKEN_JSON = (("2", 2), ("2.0", 2), ('"2"', 2), ("4", 4), ("4.0", 4), ('"4"', 4))
TAKEN_FORM = (("2", 2), ("4", 4))
REFUSED_JSON = (
    "true", "false", "0", "1", "3", "8", "-2", "2.27", "NaN", "Infinity", "-Infinity", "1e999",
    "[]", "[2]", "{}", '" 2 "', '"2 "', '"\\uff12"', '"\\u0662"', '"\\u00b2"', '"3"', '"two"',
    '"2x"', '"x2"', '"true"', '"0x2"', '"2\\u0000"', "2" * 5000,
)  # fmt: skip
REFUSED_FORM = (
    "1",
    "3",
    "8",
    "-2",
    "2.27",
    "NaN",
    "true",
    "[]",
    " 2 ",
    "２",
    "²",
    "two",
    "2x",
    "inf",
)


def as_json(scale: str) -> Any:
    return json_body(f'{{"image_url": "{SOURCE}", "scale": {scale}}}')


def shown(scale: str) -> str:
    return scale if len(scale) < 20 else f"of {len(scale)} digits"


SCALES = (
    *(
        Row(f"JSON scale {text} is {scale}", LINE, as_json(text), Upscaled(scale), "seen")
        for text, scale in TAKEN_JSON
    ),
    *(
        Row(f"form scale {text} is {scale}", LINE, form("photo", text), Upscaled(scale))
        for text, scale in TAKEN_FORM
    ),
    *(
        Row(f"JSON scale {shown(text)} is refused", LINE, as_json(text), BAD, "ours")
        for text in REFUSED_JSON
    ),
    *(
        Row(f"form scale {text!r} is refused", LINE, form("photo", text), BAD, "ours")
        for text in REFUSED_FORM
    ),
)
