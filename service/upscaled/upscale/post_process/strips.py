"""A window's care shared out among threads: beside a GPU, one thread's would be slow."""

from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

import numpy as np

from upscaled.upscale.post_process.sanity_check import BLOCK_PX
from upscaled.upscale.post_process.steps import Check, Lock, PostProcessing, Temper
from upscaled_models.backends.base import Window, round_up

LEAST_ROWS_PX: Final = 2 * BLOCK_PX
"""Of a strip, in source pixels: below, handing it over costs more than it saves."""

Span = tuple[int, int]


def spread(care: PostProcessing, pool: Executor, strips: int) -> PostProcessing:
    """The same care, each window cut into at most `strips` strips of rows.

    Its lock and its tempering give the same result to the last bit; its check compares blocks that
    lie elsewhere where a window's height is no multiple of `BLOCK_PX`.
    """
    check, lock, temper = care.check, care.lock, care.temper
    return replace(
        care,
        check=None if check is None else _spread_check(check, pool, strips),
        lock=None if lock is None else _spread_lock(lock, care.correction_reach_px, pool, strips),
        temper=None
        if temper is None
        else _spread_temper(temper, care.temper_reach_px, pool, strips),
    )


def _spread_check(check: Check, pool: Executor, strips: int) -> Check:
    def check_in_strips(source: Window, result: Window) -> bool:
        gain = _find_gain(source, result)
        spans = _cut(source.shape[0], strips)
        if gain is None or len(spans) == 1:
            return check(source, result)

        def check_one(span: Span) -> bool:
            start, end = span
            return check(source[start:end], result[start * gain : end * gain])

        return all(pool.map(check_one, spans))

    return check_in_strips


def _spread_lock(lock: Lock, correction_reach_px: int, pool: Executor, strips: int) -> Lock:
    def lock_in_strips(source: Window, result: Window) -> Window:
        height = source.shape[0]
        gain = _find_gain(source, result)
        spans = _cut(height, strips)
        if gain is None or len(spans) == 1:
            return lock(source, result)
        locked = np.empty_like(result)

        def lock_one(span: Span) -> None:
            start, end = span
            seen_start, seen_end = (
                max(0, start - correction_reach_px),
                min(height, end + correction_reach_px),
            )
            strip = lock(source[seen_start:seen_end], result[seen_start * gain : seen_end * gain])
            kept = slice((start - seen_start) * gain, (end - seen_start) * gain)
            locked[start * gain : end * gain] = strip[kept]

        for _ in pool.map(lock_one, spans):
            pass  # what one of them raises is raised here
        return locked

    return lock_in_strips


def _spread_temper(temper: Temper, temper_reach_px: int, pool: Executor, strips: int) -> Temper:
    def temper_in_strips(vivid: Window, faithful: Window) -> Window:
        height = vivid.shape[0]
        spans = _cut(height, strips)
        if len(spans) == 1:
            return temper(vivid, faithful)
        tempered = np.empty_like(faithful)

        def temper_one(span: Span) -> None:
            start, end = span
            seen = slice(max(0, start - temper_reach_px), min(height, end + temper_reach_px))
            strip = temper(vivid[seen], faithful[seen])
            tempered[start:end] = strip[start - seen.start : end - seen.start]

        for _ in pool.map(temper_one, spans):
            pass  # what one of them raises is raised here
        return tempered

    return temper_in_strips


def _find_gain(source: Window, result: Window) -> int | None:
    gain, rest = divmod(result.shape[0], source.shape[0])
    return None if rest else gain


def _cut(height: int, strips: int) -> list[Span]:
    """Spans of whole blocks of the check, the last one with what is left over."""
    rows = max(LEAST_ROWS_PX, round_up(-(-height // strips), BLOCK_PX))
    starts = range(0, max(1, height - LEAST_ROWS_PX + 1), rows)
    ends = [*starts[1:], height]
    return list(zip(starts, ends, strict=True))
