"""The background check: its last answer counts, and one that hangs is trouble by itself."""

import asyncio
import threading
from collections.abc import Callable
from typing import cast

import pytest

from upscaled.api.readiness import StateProbe
from upscaled.state import State


class Checks:
    """State whose checks give these results, one after the other, then hang, raise or pass."""

    def __init__(self, *results: str, then: Callable[[], str] = str) -> None:
        self.begun = 0
        self._results = iter(results)
        self._then = then

    def find_trouble(self) -> str:
        self.begun += 1
        result = next(self._results, None)
        return self._then() if result is None else result


def probe_of(checks: Checks) -> StateProbe:
    return StateProbe(cast(State, checks))


async def test_the_result_of_the_last_check_is_reported() -> None:
    probe = probe_of(Checks("disk full"))
    assert probe.trouble
    await probe.check()
    assert probe.trouble == "disk full"
    await probe.check()
    assert probe.trouble == ""


async def test_a_check_that_hangs_is_trouble_and_is_never_begun_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaled.api.readiness.PROBE_WITHIN_S", 0.02)
    may_end = threading.Event()

    def hang() -> str:
        may_end.wait(60)
        return ""

    checks = Checks(then=hang)
    probe = probe_of(checks)
    for _ in range(3):
        await probe.check()
        assert probe.trouble == "no answer within 0.02 s"
    assert checks.begun == 1
    may_end.set()
    monkeypatch.setattr("upscaled.api.readiness.PROBE_WITHIN_S", 60)
    await probe.check()
    assert probe.trouble == ""
    await probe.check()
    assert checks.begun == 2


async def test_a_check_that_raises_is_trouble(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise ValueError("unforeseen")

    probe = probe_of(Checks(then=fail))
    await probe.check()
    assert probe.trouble == "ValueError: unforeseen"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_each_cause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    probe = probe_of(Checks("", "full", "full", "gone", "", ""))
    with caplog.at_level("INFO"):
        for _ in range(6):
            await probe.check()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "the stored state works"),
        ("ERROR", "not ready: full"),
        ("ERROR", "not ready: gone"),
        ("INFO", "the stored state works"),
    ]


async def test_the_state_is_checked_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upscaled.api.readiness.PROBE_EVERY_S", 0.001)
    is_enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def pass_third() -> str:
        loop.call_soon_threadsafe(is_enough.set)
        return ""

    task = asyncio.create_task(probe_of(Checks("", "", then=pass_third)).run_forever())
    async with asyncio.timeout(60):
        await is_enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
