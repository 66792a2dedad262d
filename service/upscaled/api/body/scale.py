"""The `scale` field: 2 or 4, as a JSON number or as text."""

import re
from typing import Final

from upscaled.errors import InvalidParameter

_TEXT: Final = re.compile(r"([24])(?:\.0+)?", re.ASCII)


def parse_scale(value: object) -> int:
    """2 or 4 from `2`, `2.0`, `"2"` or `"2.0"`.

    Raises:
        InvalidParameter: anything else: `true`, 3, NaN, `[]`, `" 2 "`, full-width digits.
    """
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match:
            return int(match[1])
    elif isinstance(value, int | float) and not isinstance(value, bool) and value in (2, 4):
        return int(value)
    raise InvalidParameter("scale must be 2 or 4")
