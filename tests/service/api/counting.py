"""Counting what a function does, where a clock would need a quiet machine."""

import sys
from collections.abc import Callable
from typing import Any


def count_calls(work: Callable[[], object]) -> int:
    """The calls of Python and C functions that `work` makes, itself included."""
    calls = 0

    def count(_frame: Any, kind: str, _argument: Any) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


class SeenBytes(bytearray):
    """Data that counts how many of its bytes were searched, and how many copied."""

    searched = 0
    copied = 0

    def find(self, what: Any, start: Any = 0, stop: Any = None) -> int:
        at = super().find(what, start, len(self) if stop is None else stop)
        end = min(len(self), len(self) if stop is None else stop) if at < 0 else at + 1
        self.searched += max(0, end - start)
        return at

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        self.copied += len(part)
        return part
