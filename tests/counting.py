"""Counting what Python code does, where a clock would depend on what else the machine does."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

_Input = TypeVar("_Input", str, bytes)


def count_steps(call: Callable[[], object]) -> int:
    """The number of lines of Python that `call` runs, loops counted each time round.

    Without garbage collection, which would run the finalisers of other tests' objects in between.
    """
    steps = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    before, was_collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        if was_collecting:
            gc.enable()
    return steps


def assert_linear(
    call: Callable[[_Input], object], make: Callable[[int], _Input], count: int
) -> None:
    """Twice the input takes at most about twice the steps of `call`; `make` gives an input."""
    once = count_steps(lambda: call(make(count)))
    twice = count_steps(lambda: call(make(2 * count)))
    assert twice <= 2.1 * once + 200, (once, twice)
