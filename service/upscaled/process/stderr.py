"""What libraries in C print while they read a file: heard, and shown to nobody.

libtiff goes on after damage it has noticed, and only prints that it has: 65,000 lines for one
hostile file.
"""

import os
from contextlib import suppress
from typing import Final

_MOST_BYTES: Final = 64 * 1024


class Complaints:
    """Takes standard error over from the libraries in C; Python's own is to be moved before."""

    def __init__(self) -> None:
        self._ear, mouth = os.pipe()
        # Whoever prints into a full pipe fails at it, and goes on.
        for end in (self._ear, mouth):
            os.set_blocking(end, False)
        os.dup2(mouth, 2)
        os.close(mouth)

    def take(self) -> str:
        """What was printed since it was last asked for, or as much of it as there was room for."""
        with suppress(BlockingIOError):
            return os.read(self._ear, _MOST_BYTES).decode(errors="replace")
        return ""
