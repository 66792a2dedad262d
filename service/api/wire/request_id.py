"""The id that ties an answer to its log line."""

import re
from typing import Final
from uuid import uuid4

# Safe in a header, in a log line and on a command line.
_SANE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None) -> str:
    """The client's own id where it is sane, else a new uuid4."""
    if sent is not None and _SANE.fullmatch(sent):
        return sent
    return str(uuid4())
