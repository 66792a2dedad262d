"""What is owed is tried again, ever more seldom, until it is given back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from upscaled.api.repair import FIRST_RETRY_S, LONGEST_RETRY_S, retry_after_s, settle_owed_for_ever
from upscaled.state import DatabaseFailed


def test_the_wait_doubles_to_an_end() -> None:
    waits = [retry_after_s(failures) for failures in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert (waits[0], waits[-1]) == (FIRST_RETRY_S, LONGEST_RETRY_S)
    assert retry_after_s(10**9) == LONGEST_RETRY_S


class FailingState:
    """A state whose database refuses so many times. It is its own ledger."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.owed = [1, 2]
        self.tried = 0

    @property
    def credits(self) -> "FailingState":
        return self

    def settle_owed(self, on_given_back: Callable[[int], object]) -> int:
        """The first credit goes through just before the database refuses for the last time."""
        self.tried += 1
        if self.tried == self.failures:
            on_given_back(self.owed.pop())
        if self.tried <= self.failures:
            raise DatabaseFailed("away")
        given_back, self.owed = self.owed, []
        for each in given_back:
            on_given_back(each)
        return len(given_back)


async def test_it_goes_on_until_all_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep, is_done = asyncio.sleep, asyncio.Event()

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("upscaled.api.repair.asyncio.sleep", note)
    state: Any = FailingState(4)
    events: list[str] = []

    def on_credit(event: str) -> None:
        events.append(event)
        if len(events) == 2:
            is_done.set()

    task = asyncio.create_task(settle_owed_for_ever(state, on_credit))
    async with asyncio.timeout(10):
        await is_done.wait()
    task.cancel()
    assert waits[:5] == [0.5, 1, 2, 4, 8]
    assert events == ["released", "released"]
    assert state.tried == 5
