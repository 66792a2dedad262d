"""The background check: its last answer counts, and one that hangs is trouble by itself."""

import asyncio
import threading

import pytest

from upscaled.api.state_probe import StateProbe


async def test_the_answer_is_remembered() -> None:
    answers = iter(["disk full", ""])
    probe = StateProbe(lambda: next(answers))
    assert probe.trouble
    await probe.check()
    assert probe.trouble == "disk full"
    await probe.check()
    assert probe.trouble == ""


async def test_a_check_that_hangs_is_trouble_and_is_never_begun_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaled.api.state_probe.PROBE_WITHIN_S", 0.02)
    begun, may_end = [], threading.Event()

    def hang() -> str:
        begun.append(1)
        may_end.wait(10)
        return ""

    probe = StateProbe(hang)
    for _ in range(3):
        await probe.check()
        assert probe.trouble == "no answer within 0.02 s"
    assert len(begun) == 1
    may_end.set()
    monkeypatch.setattr("upscaled.api.state_probe.PROBE_WITHIN_S", 10)
    await probe.check()
    assert probe.trouble == ""
    await probe.check()
    assert len(begun) == 2


async def test_a_check_that_raises_is_trouble(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise ValueError("unforeseen")

    probe = StateProbe(fail)
    await probe.check()
    assert probe.trouble == "ValueError: unforeseen"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_each_cause_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter(["", "full", "full", "gone", "", ""])
    probe = StateProbe(lambda: next(answers))
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
    monkeypatch.setattr("upscaled.api.state_probe.PROBE_EVERY_S", 0.001)
    is_enough, checks = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def count() -> str:
        checks.append(1)
        if len(checks) == 3:
            loop.call_soon_threadsafe(is_enough.set)
        return ""

    task = asyncio.create_task(StateProbe(count).run_for_ever())
    async with asyncio.timeout(10):
        await is_enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
