"""How many pixels of results are under way at once, whatever the number of files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelRoom:
    """Results share `most_px`; one alone may be of any size."""

    def __init__(self, most_px: int) -> None:
        self._most_px = most_px
        self._taken_px = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, result_px: int) -> Iterator[None]:
        """Wait until there is room for a result, and keep it for the block."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._taken_px or self._taken_px + result_px <= self._most_px
            )
            self._taken_px += result_px
        try:
            yield
        finally:
            with self._changed:
                self._taken_px -= result_px
                self._changed.notify_all()
