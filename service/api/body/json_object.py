"""The JSON body's fields, as they came."""

import json
from typing import Any, Final

from service.errors import InvalidRequestBody

# A body of brackets and commas grows fifty-fold in memory when parsed; a request has a handful.
MAX_STRUCTURE: Final = 10_000
_STRUCTURE: Final = (b",", b"[", b"{", b":")


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a JSON body (UTF-8, UTF-16 or UTF-32, as `json` detects).

    Raises:
        InvalidRequestBody: empty, broken, no object, nested too deep or of too many values.
    """
    if sum(body.count(mark) for mark in _STRUCTURE) > MAX_STRUCTURE:
        raise InvalidRequestBody("Invalid JSON: too many values")
    try:
        value = json.loads(body, parse_int=_parse_int)
    except (ValueError, RecursionError):
        raise InvalidRequestBody("Invalid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequestBody("Invalid JSON: an object is expected")
    return value


def _parse_int(digits: str) -> int | float:
    """Python refuses integers of thousands of digits; here they are only out of range."""
    return int(digits) if len(digits) < 20 else float(digits)
