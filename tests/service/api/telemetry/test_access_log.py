import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from upscaled.api.telemetry.access_log import AccessRecord, Reporter


def finished(name: str) -> AccessRecord:
    return AccessRecord("r", "GET", name, 200)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_records_are_reported_in_order_in_a_thread() -> None:
    reported: list[tuple[str, int]] = []
    reporter = Reporter([lambda each: reported.append((each.route, threading.get_ident()))], 0.02)
    for number in range(5):
        reporter.add(finished(str(number)))
    assert reported == []
    await until(lambda: len(reported) == 5)
    assert [name for name, _ in reported] == list("01234")
    assert threading.get_ident() not in {thread for _, thread in reported}
    reporter.add(finished("again"))
    await until(lambda: len(reported) == 6)
    await reporter.close()


async def test_every_observer_gets_a_record_before_the_next_one() -> None:
    reported: list[str] = []
    reporter = Reporter(
        [lambda e: reported.append("a" + e.route), lambda e: reported.append("b" + e.route)], 9
    )
    reporter.add(finished("1"))
    reporter.add(finished("2"))
    reporter.flush()
    assert reported == ["a1", "b1", "a2", "b2"]
    await reporter.close()


async def test_no_record_is_lost_at_the_end_nor_after_it() -> None:
    reported: list[str] = []
    reporter = Reporter([lambda each: reported.append(each.route)], 3600)
    reporter.add(finished("before"))
    await reporter.close()
    assert reported == ["before"]
    reporter.add(finished("after"))
    assert reported == ["before", "after"]


async def test_a_slow_observer_holds_up_no_request() -> None:
    release = threading.Event()

    def wait(_: AccessRecord) -> None:
        release.wait(60)

    reporter = Reporter([wait], 0.0)
    reporter.add(finished("slow"))
    await asyncio.sleep(0.05)
    begun = time.monotonic()
    for number in range(100):
        reporter.add(finished(str(number)))
    await asyncio.sleep(0)
    assert time.monotonic() - begun < 30
    release.set()
    await reporter.close()


async def test_threads_that_flush_at_once_report_each_record_once() -> None:
    reported: list[str] = []
    reporter = Reporter([lambda each: reported.append(each.route)], 3600)
    for number in range(2000):
        reporter.add(finished(str(number)))
    await asyncio.gather(*(asyncio.to_thread(reporter.flush) for _ in range(8)))
    assert reported == [str(number) for number in range(2000)]
    await reporter.close()


async def test_an_observer_that_fails_keeps_no_record_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported: list[str] = []

    def fail(_: AccessRecord) -> None:
        raise ValueError("broken")

    reporter = Reporter([fail, lambda each: reported.append(each.route)], 0.01)
    reporter.add(finished("1"))
    await until(lambda: reported == ["1"])
    reporter.add(finished("2"))
    await until(lambda: reported == ["1", "2"])
    await reporter.close()
    assert sum(bool(record.exc_info) for record in caplog.records) == 2


async def test_the_thread_of_a_reporter_ends_with_it() -> None:
    before = set(threading.enumerate())

    def new_reporters() -> int:
        return sum(each.name == "reporter" for each in set(threading.enumerate()) - before)

    reporter = Reporter([], 3600)
    await reporter.close()
    assert new_reporters() == 0
    reporter = Reporter([], 3600)
    reporter.add(finished("1"))
    assert new_reporters() == 1
    await reporter.close()
    assert new_reporters() == 0
