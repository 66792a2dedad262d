"""Blocking steps that must not be left half done when their request is cancelled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_to_end(step: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Run `step` in a thread and give its result.

    A thread cannot be cancelled. If the caller is, the step is waited for, then undone, and only
    then the cancellation goes on.
    """
    task = asyncio.create_task(asyncio.to_thread(step))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            result = await task
            if undo is not None:
                await asyncio.to_thread(undo, result)
        raise
