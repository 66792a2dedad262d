"""The JSON body's fields, as they came."""

import json
from typing import Any, Final

from upscaled.errors import InvalidRequestBody

# A body of brackets and commas grows fifty-fold in memory when parsed; a request has a handful.
MAX_STRUCTURE: Final = 10_000
_STRUCTURE: Final = (b",", b"[", b"{", b":")
# A picture of 25 MB in base64, its slashes and its line ends escaped, has 800,000. Each takes ten
# times as long as another character, and nothing else runs meanwhile.
MAX_ESCAPES: Final = 1_000_000


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a JSON body (UTF-8, UTF-16 or UTF-32, as `json` detects).

    Raises:
        InvalidRequestBody: empty, broken, no object, nested too deep, or of too many values or
            escapes.
    """
    if sum(body.count(mark) for mark in _STRUCTURE) > MAX_STRUCTURE:
        raise InvalidRequestBody("Invalid JSON: too many values")
    if body.count(b"\\") > MAX_ESCAPES:
        raise InvalidRequestBody("Invalid JSON: too many escapes")
    try:
        # Strictly: left to itself `json` lets lone surrogates pass, at 0.2 us each and without
        # giving way to other threads.
        value = parse_json_text(body.decode(json.detect_encoding(body)))
    except ValueError:
        raise InvalidRequestBody("Invalid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequestBody("Invalid JSON: an object is expected")
    return value


def parse_json_text(text: str) -> object:
    """Any JSON value; integers of 20 digits and more come as floats.

    Raises:
        ValueError: no JSON, or nested too deep.
    """
    try:
        value: object = json.loads(text, parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _parse_int(digits: str) -> int | float:
    """Python refuses integers of thousands of digits; here they are only out of range."""
    return int(digits) if len(digits) < 20 else float(digits)
