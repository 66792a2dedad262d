"""Divide lists into pages: format and read cursors, and describe the `Link` to the next page.

A cursor is the position of the last row of a page, so a row that is added or removed meanwhile
moves no other one to another page. Clients send it back as they got it.
"""

import base64
import json
import math
import uuid
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from upscaled.errors import InvalidParameter

_MAX_ID: Final = 2**63 - 1
_UNREADABLE: Final = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)


def format_cursor(position: Sequence[float | str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def read_job_position(cursor: str) -> tuple[float, str] | None:
    """Return the time and the id of a job in a list of jobs; None for "".

    A cursor that no list of jobs gave raises InvalidParameter.
    """
    if not cursor:
        return None
    try:
        at_s, job_id = json.loads(base64.urlsafe_b64decode(cursor))
        position = float(at_s), str(uuid.UUID(job_id))
        if not math.isfinite(position[0]):
            raise ValueError
    except _UNREADABLE:
        raise _refusal() from None
    return position


def read_row_id(cursor: str) -> int:
    """Return the id of a row in a list in the order of ids; 0, before all, for "".

    A cursor that no such list gave raises InvalidParameter.
    """
    if not cursor:
        return 0
    try:
        (row_id,) = json.loads(base64.urlsafe_b64decode(cursor))
        if type(row_id) is not int or not 0 < row_id <= _MAX_ID:
            raise ValueError
    except _UNREADABLE:
        raise _refusal() from None
    return row_id


def describe_link(path: str, position: Sequence[float | str], **parameters: object) -> str:
    """Return the header `Link` (RFC 8288) of a page that another one follows.

    parameters: the next page's others; those that are None are left out.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    query = urlencode({**given, "cursor": format_cursor(position)})
    return f'<{path}?{query}>; rel="next"'


def _refusal() -> InvalidParameter:
    return InvalidParameter("cursor must be one that this API gave for this list")
