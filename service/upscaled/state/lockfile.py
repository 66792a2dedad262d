"""Lock files that show whether the process which made them still runs.

The kernel drops a lock however the process ends, so a file that can be locked is an orphan. Process
ids are used again, and two containers on one disk number theirs alike.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def create_locked(path: Path) -> int:
    """Create a new file, lock it and return its open descriptor; closing it drops the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
        os.close(descriptor)  # removed as an orphan between the two calls: make another


@contextmanager
def adopt_orphan(path: Path) -> Iterator[bool]:
    """Lock `path` for the block if its process ended, and remove it unless the block raises.

    Yields whether the file is an orphan; False also if it is gone or another caller adopts it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_orphan = True
    except BlockingIOError:
        is_orphan = False
    try:
        yield is_orphan
        if is_orphan:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
