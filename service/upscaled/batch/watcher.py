"""Watch a folder or a bucket, and yield each file once it is complete.

Looking again and again finds files on any file system, network ones included. A file is complete
when it has not changed between two looks and no process has it open for writing, as far as the
kernel knows; an object as soon as it is there.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from upscaled.batch.bucket_source import S3Url
from upscaled.batch.discovery import TOP, Finder, Source

EVERY_S: Final = 1.0
EVERY_IN_BUCKET_S: Final = 5.0
"""Each look is a paid request for every 1000 objects."""
_LOOKING_SHARE: Final = 0.02
"""Most of the time that is spent looking: a folder of a million files is looked at more rarely."""
_LOOKING_SHARE_IN_BUCKET: Final = 0.2
"""Larger, for that is time in which this machine waits, and one slow answer is no large bucket."""
_GIVEN: Final = float("inf")


class Watcher:
    """Watcher of one folder, or of the objects below one prefix of a bucket.

    It keeps about 100 bytes for each file that lies there, and nothing of those that went.
    settle_s: for so long a file must stay as it is. every_s: the least time between two looks;
    None: `EVERY_S` or `EVERY_IN_BUCKET_S`.
    """

    def __init__(
        self, finder: Finder, top: Path | S3Url, *, settle_s: float, every_s: float | None = None
    ) -> None:
        self._finder = finder
        self._top = top
        self._settle_s = settle_s
        is_bucket = isinstance(top, S3Url)
        default_s = EVERY_IN_BUCKET_S if is_bucket else EVERY_S
        self._every_s = default_s if every_s is None else every_s
        self._looking_share = _LOOKING_SHARE_IN_BUCKET if is_bucket else _LOOKING_SHARE
        self._known: dict[int, float] = {}
        self._is_cut_short = False
        """True while the last look failed at the top, as while a bucket is down."""

    def wait_for(self, over: threading.Event) -> Iterator[Source]:
        """Yield every file that is there or comes, changes or is moved in, until `over` is set."""
        while not over.is_set():
            looking_s = 0.0
            began = time.monotonic()
            for source in self._look():
                looking_s += time.monotonic() - began
                if source is not None:
                    yield source
                if over.is_set():
                    return
                began = time.monotonic()
            looking_s += time.monotonic() - began
            pause_s = 0 if self._is_cut_short else looking_s / self._looking_share
            over.wait(max(self._every_s, pause_s))

    def _look(self) -> Iterator[Source | None]:
        """Look at every file once, and yield None for those that are not to be upscaled now."""
        known: dict[int, float] = {}
        self._is_cut_short = False
        for source in self._finder.walk(self._top):
            self._is_cut_short |= source.error is not None and source.folder == TOP
            state = _state_of(source)
            if state is None:
                continue
            seen_at = self._known.get(state, time.monotonic())
            is_ready = seen_at != _GIVEN and self._is_complete(source, seen_at)
            known[state] = _GIVEN if is_ready else seen_at
            yield source if is_ready else None
        self._known = self._known | known if self._is_cut_short else known

    def _is_complete(self, source: Source, seen_at: float) -> bool:
        is_still = time.monotonic() - seen_at >= self._settle_s
        return source.error is not None or source.file.is_whole(is_still=is_still)


def _state_of(source: Source) -> int | None:
    """Return a number for a file as it is now, another once it changed; None if it is gone."""
    if source.error is not None:
        return hash((str(source.file), source.error.errno))
    return source.file.state()
