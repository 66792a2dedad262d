"""Counting what Python code does, where a clock would depend on what else the machine does."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_steps(call: Callable[[], object]) -> int:
    """The number of lines of Python that `call` runs, loops counted each time round."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def assert_linear(call: Callable[[str], object], make: Callable[[int], str], count: int) -> None:
    """Twice the input takes at most about twice the steps of `call`; `make` gives an input."""
    once = count_steps(lambda: call(make(count)))
    twice = count_steps(lambda: call(make(2 * count)))
    assert twice <= 2.1 * once + 200, (once, twice)
