import asyncio
from dataclasses import dataclass
from typing import cast

import pytest

from service.pool.line import Line, LineFull
from service.pool.process import WorkerProcess
from tests.service.pool.pools import request


@dataclass(eq=False)
class Named:
    """All that a line knows of a worker."""

    is_alive: bool = True


def make_worker(*, is_alive: bool = True) -> WorkerProcess:
    return cast("WorkerProcess", Named(is_alive))


async def test_a_turn_that_comes_in_the_moment_it_is_given_up_goes_to_the_next() -> None:
    line, worker = Line(5), make_worker()
    first = asyncio.create_task(line.take(request()))
    second = asyncio.create_task(line.take(request()))
    await asyncio.sleep(0)
    line.offer(worker)  # the first has its turn, but has not woken up to take it
    first.cancel()
    assert await second is worker
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_turn_given_up_with_nobody_behind_leaves_the_worker_idle() -> None:
    line, worker = Line(5), make_worker()
    only = asyncio.create_task(line.take(request()))
    await asyncio.sleep(0)
    line.offer(worker)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    assert await line.take(request()) is worker


async def test_a_worker_that_died_while_idle_is_never_handed_out() -> None:
    line, alive = Line(5), make_worker()
    line.offer(make_worker(is_alive=False))
    line.offer(alive)
    assert await line.take(request()) is alive


async def test_a_withdrawn_worker_is_never_handed_out() -> None:
    line, worker = Line(0), make_worker()
    line.offer(worker)
    line.withdraw(worker)
    line.withdraw(worker)
    with pytest.raises(LineFull):
        await line.take(request())


async def test_a_retry_goes_first_and_needs_no_place() -> None:
    line, worker = Line(1), make_worker()
    waiting = asyncio.create_task(line.take(request()))
    await asyncio.sleep(0)
    again = asyncio.create_task(line.take(request(), is_again=True))
    await asyncio.sleep(0)
    line.offer(worker)
    assert await again is worker
    assert not waiting.done()
    line.dismiss(ValueError("closed"))
    with pytest.raises(ValueError, match="closed"):
        await waiting
