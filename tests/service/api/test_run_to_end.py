import asyncio
import threading

import pytest

from upscaled.api.run_to_end import run_to_end


async def test_the_result_comes_back() -> None:
    assert await run_to_end(lambda: 5) == 5


async def test_an_error_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_to_end(lambda: 1 // 0)


@pytest.mark.parametrize("is_failing", [False, True])
async def test_a_cancelled_step_is_waited_for_and_undone(is_failing: bool) -> None:
    begun, go_on = threading.Event(), threading.Event()
    undone: list[str] = []

    def step() -> str:
        begun.set()
        go_on.wait(5)
        if is_failing:
            raise ValueError
        return "made"

    task = asyncio.create_task(run_to_end(step, undone.append))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ([] if is_failing else ["made"])
