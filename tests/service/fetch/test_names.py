import asyncio
import gc
import socket
import threading
import time
from typing import Any

import pytest

from upscaled.fetch.names import NameLookup


async def test_a_name_gives_its_addresses() -> None:
    (first, *_) = await NameLookup().resolve("localhost", 8080)
    *_, where = first
    assert where[0] in ("127.0.0.1", "::1")
    assert where[1] == 8080


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64 + ".example", "a..b"])
async def test_an_unknown_or_impossible_name_raises(name: str) -> None:
    with pytest.raises((OSError, UnicodeError)):
        await NameLookup().resolve(name, 80)


class Hanging:
    """`getaddrinfo` of a name server that does not answer until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let_go = threading.Event()
        self.calls = 0
        self._original = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.answer)

    def answer(self, host: str, *rest: Any, **options: Any) -> Any:
        self.calls += 1
        if host.startswith("hanging"):
            self.let_go.wait(10)
        return self._original("127.0.0.1", *rest, **options)


async def test_hanging_lookups_delay_no_other_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, names = Hanging(monkeypatch), NameLookup()
    tasks = [asyncio.create_task(names.resolve(f"hanging{n}", 80, n)) for n in range(40)]
    while hanging.calls < 40:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    assert await names.resolve("quick", 80)
    assert await asyncio.to_thread(lambda: "the pool of all others") is not None
    assert time.monotonic() - started < 8  # the others hang for 10 s
    hanging.let_go.set()
    await asyncio.gather(*tasks)


async def test_a_cancelled_lookup_keeps_its_slot_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or else every client that gives up would leave one more thread behind."""
    hanging, names = Hanging(monkeypatch), NameLookup(max_lookups=2)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await names.resolve("hanging", 80)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await names.resolve("quick", 80)
    assert hanging.calls == 2
    hanging.let_go.set()
    async with asyncio.timeout(5):
        assert await names.resolve("quick", 80)


async def test_hanging_lookups_of_one_key_delay_no_other_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging, names = Hanging(monkeypatch), NameLookup(max_lookups=4, max_per_key=3)
    tasks = [asyncio.create_task(names.resolve(f"hanging{n}", 80, key_id=1)) for n in range(40)]
    while hanging.calls < 3:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        assert await names.resolve("quick", 80, key_id=2)
    assert hanging.calls == 3 + 1
    for task in tasks[20:]:
        task.cancel()
    hanging.let_go.set()
    async with asyncio.timeout(5):
        assert all(await asyncio.gather(*tasks[:20]))
        assert await names.resolve("quick", 80, key_id=1)
    assert hanging.calls == 20 + 2
    await asyncio.gather(*tasks[20:], return_exceptions=True)
    del task, tasks
    async with asyncio.timeout(5):
        while names._slots_of_key:  # until the threads' last frames are gone
            gc.collect()
            await asyncio.sleep(0.01)


async def test_a_system_without_a_further_thread_leaves_the_slots_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = NameLookup(max_lookups=1)
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="new thread"):
            await names.resolve("localhost", 80)
    async with asyncio.timeout(5):
        assert await names.resolve("localhost", 80)
