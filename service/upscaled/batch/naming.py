"""What the result of a file is called."""

import hashlib
import os
from collections.abc import Iterator
from itertools import count
from pathlib import PurePath
from typing import Final

MAX_NAME_BYTES: Final = 255
"""The longest file name that ext4, XFS, Btrfs, APFS and NTFS take."""
_DIGEST_DIGITS: Final = 10
_MAX_FURTHER_BYTES: Final = 3
"""Of a character in UTF-8, behind its first (RFC 3629, 3); other encodings may have more."""


def candidate_names(source_name: str, scale: int, ending: str) -> Iterator[str]:
    """The result's name, and what it is called where that is another source's: without end.

    a.png at x4: `a-x4.jpg`, `a.png-x4.jpg`, `a.png-2-x4.jpg`, `a.png-3-x4.jpg` ... A name that
    would be longer than `MAX_NAME_BYTES` is cut, and a digest of the whole keeps it apart.
    """
    suffix = f"-x{scale}.{ending}"
    return (_shorten(stem, suffix) + suffix for stem in _stems(source_name))


def _stems(source_name: str) -> Iterator[str]:
    stem = PurePath(source_name).stem
    yield stem
    if stem != source_name:
        yield source_name
    yield from (f"{source_name}-{number}" for number in count(2))


def _shorten(stem: str, suffix: str) -> str:
    """The stem, cut at a whole character where it and the suffix are too long for a name."""
    room_bytes = MAX_NAME_BYTES - len(os.fsencode(suffix))
    name = os.fsencode(stem)
    if len(name) <= room_bytes:
        return stem
    digest = "~" + hashlib.sha256(name).hexdigest()[:_DIGEST_DIGITS]
    kept_bytes = room_bytes - len(digest)
    for _ in range(_MAX_FURTHER_BYTES):
        if name[kept_bytes] & 0xC0 == 0x80:  # a UTF-8 character continues here
            kept_bytes -= 1
    return os.fsdecode(name[:kept_bytes]) + digest
