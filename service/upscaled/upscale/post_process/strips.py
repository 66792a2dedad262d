"""Post-process the strips of a window in parallel: beside a GPU, one thread would be slow."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from upscaled.upscale.post_process.sanity_check import BLOCK_PX
from upscaled.upscale.post_process.steps import Check, PostProcessing
from upscaled_models.backends.base import Window, round_up

LEAST_ROWS_PX: Final = 2 * BLOCK_PX
"""Fewest source rows of a strip: below, passing it to a thread costs more than it saves."""

Span = tuple[int, int]


def split_into_strips(steps: PostProcessing, pool: Executor, strips: int) -> PostProcessing:
    """The same steps, run on at most `strips` strips of rows of each window at once.

    Colour correction and tempering give the same result to the last bit; the sanity check compares
    blocks that lie elsewhere where a window's height is no multiple of `BLOCK_PX`.
    """
    split = _Split(pool, strips)
    check, correct, temper = steps.check, steps.correct, steps.temper
    return replace(
        steps,
        check=None if check is None else partial(split.check, check),
        correct=None
        if correct is None
        else partial(split.compute, correct, steps.correction_reach_px),
        temper=None if temper is None else partial(split.compute, temper, steps.temper_reach_px),
    )


@dataclass(frozen=True, slots=True)
class _Split:
    pool: Executor
    strips: int

    def check(self, check: Check, source: Window, result: Window) -> bool:
        """Whether every strip passes."""
        gain = _find_gain(source, result)
        spans = _cut(source.shape[0], self.strips)
        if gain is None or len(spans) == 1:
            return check(source, result)

        def check_one(span: Span) -> bool:
            start, end = span
            return check(source[start:end], result[start * gain : end * gain])

        return all(self.pool.map(check_one, spans))

    def compute(
        self, step: Callable[[Window, Window], Window], reach_px: int, one: Window, other: Window
    ) -> Window:
        """The step of two windows, `other` a whole number of times as large as `one`.

        reach_px: how many rows of `one` around a row the step reads.
        """
        height = one.shape[0]
        gain = _find_gain(one, other)
        spans = _cut(height, self.strips)
        if gain is None or len(spans) == 1:
            return step(one, other)
        computed = np.empty_like(other)

        def compute_one(span: Span) -> None:
            start, end = span
            top, bottom = max(0, start - reach_px), min(height, end + reach_px)
            strip = step(one[top:bottom], other[top * gain : bottom * gain])
            computed[start * gain : end * gain] = strip[(start - top) * gain : (end - top) * gain]

        for _ in self.pool.map(compute_one, spans):
            pass  # raises what a strip raised
        return computed


def _find_gain(source: Window, result: Window) -> int | None:
    gain, rest = divmod(result.shape[0], source.shape[0])
    return None if rest else gain


def _cut(height: int, strips: int) -> list[Span]:
    """Spans of whole blocks of the sanity check, the last one with what is left over."""
    rows = max(LEAST_ROWS_PX, round_up(-(-height // strips), BLOCK_PX))
    starts = range(0, max(1, height - LEAST_ROWS_PX + 1), rows)
    ends = [*starts[1:], height]
    return list(zip(starts, ends, strict=True))
