import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from upscaled.api.telemetry.access_log import Exchange, Facts, Report


def exchange(name: str) -> Exchange:
    return Exchange("GET", name, 200, 0.0, 0.0, 0.0, None, None, Facts("r"))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_over_is_told_of_soon_in_its_order_and_beside_the_loop() -> None:
    told: list[tuple[str, int]] = []
    report = Report([lambda each: told.append((each.route, threading.get_ident()))], 0.02)
    for number in range(5):
        report.add(exchange(str(number)))
    assert told == []
    await until(lambda: len(told) == 5)
    assert [name for name, _ in told] == list("01234")
    assert threading.get_ident() not in {thread for _, thread in told}
    report.add(exchange("again"))
    await until(lambda: len(told) == 6)
    await report.close()


async def test_every_observer_hears_of_each_before_the_next() -> None:
    told: list[str] = []
    report = Report([lambda e: told.append("a" + e.route), lambda e: told.append("b" + e.route)], 9)
    report.add(exchange("1"))
    report.add(exchange("2"))
    report.tell()
    assert told == ["a1", "b1", "a2", "b2"]
    await report.close()


async def test_nothing_is_lost_at_the_end_nor_after_it() -> None:
    told: list[str] = []
    report = Report([lambda each: told.append(each.route)], 3600)
    report.add(exchange("before"))
    await report.close()
    assert told == ["before"]
    report.add(exchange("after"))
    assert told == ["before", "after"]


async def test_a_slow_observer_holds_up_no_request() -> None:
    release = threading.Event()

    def wait(_: Exchange) -> None:
        release.wait(5)

    report = Report([wait], 0.0)
    report.add(exchange("slow"))
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    for number in range(100):
        report.add(exchange(str(number)))
    await asyncio.sleep(0)
    assert time.monotonic() - begun < 1
    release.set()
    await report.close()


async def test_threads_that_tell_at_once_tell_of_each_only_once() -> None:
    told: list[str] = []
    report = Report([lambda each: told.append(each.route)], 3600)
    for number in range(2000):
        report.add(exchange(str(number)))
    await asyncio.gather(*(asyncio.to_thread(report.tell) for _ in range(8)))
    assert told == [str(number) for number in range(2000)]
    await report.close()


async def test_an_observer_that_fails_keeps_nobody_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    def fail(_: Exchange) -> None:
        raise ValueError("broken")

    report = Report([fail, lambda each: told.append(each.route)], 0.01)
    report.add(exchange("1"))
    await until(lambda: told == ["1"])
    report.add(exchange("2"))
    await until(lambda: told == ["1", "2"])
    await report.close()
    assert sum(bool(record.exc_info) for record in caplog.records) == 2


async def test_its_thread_ends_with_it() -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "report"]

    before = len(threads())
    report = Report([], 3600)
    await report.close()
    assert len(threads()) == before
    report = Report([], 3600)
    report.add(exchange("1"))
    assert len(threads()) == before + 1
    await report.close()
    assert len(threads()) == before
