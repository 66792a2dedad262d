"""The id that ties an answer to its log line."""

import re
from typing import Final
from uuid import uuid4

from upscaled.state.keys import SECRET_PREFIX

# Safe in a header, in a log line and on a command line.
_SANE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None, api_key: str | None = None) -> str:
    """The client's own id where it is sane and no secret, else a new uuid4.

    Ids are logged, so none may be an API key: neither one of ours, known by its prefix, nor
    whatever this request was sent with (`api_key`).
    """
    if sent is None or not _SANE.fullmatch(sent) or SECRET_PREFIX in sent.lower():
        return str(uuid4())
    if api_key is not None and (key := api_key.strip()) and key in sent:
        return str(uuid4())
    return sent
