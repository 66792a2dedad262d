"""Sources that answer without end: cut early, and nothing else waits for them.

Work is counted rather than timed: the bytes that a source gets rid of, the memory that its bytes
take, and the pieces that all fetches together parse in one iteration of the event loop.
"""

import asyncio
import gzip
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from tests.service.api.origin import Origin, origin
from tests.service.fetch.received import Received
from upscaled.config import load_settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, ServiceError
from upscaled.fetch.connection import READ_BYTES
from upscaled.fetch.fetcher import PIECES_PER_ITERATION, Fetcher
from upscaled.fetch.framing import ChunkedBody
from upscaled.fetch.head import HeadParser
from upscaled.fetch.messages import FetchOptions
from upscaled.fetch.url import UNUSABLE_URL_TEXT

LIMIT_BYTES = 1_000_000
SOURCES = 16
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"

# What is sent first, and then again and again.
ENDLESS = {
    "100 Continue": (b"", b"HTTP/1.1 100 C\r\n\r\n"),
    "102 Processing": (b"", b"HTTP/1.1 102 P\r\nX: y\r\n\r\n"),
    "103 Early Hints": (b"", b"HTTP/1.1 103 E\r\n\r\n"),
    "a status line": (b"HTTP/1.1 200 ", b"y"),
    "a header": (OK + b"X: ", b"y"),
    "headers": (OK, b"a:\r\n"),
    "cookies": (OK, b"Set-Cookie: a=b\r\n"),
    "a folded header": (OK + b"Location: ", b"\r\n y"),
    "blank lines": (b"", b"\r\n"),
    "a chunk's extension": (CHUNKS + b"5;", b"y"),
    "a chunk's digits": (CHUNKS, b"0"),
    "a trailer": (CHUNKS + b"5\r\nhello\r\n0\r\nX: ", b"y"),
    "trailers": (CHUNKS + b"5\r\nhello\r\n0\r\n", b"a:\r\n"),
    "chunks of a byte": (CHUNKS, b"1\r\na\r\n"),
    "a body": (OK + b"\r\n", b"y"),
    "members that unpack to nothing": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
    "a packed body": (OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(10_000_000))),
}
# Head, framing or the limit, whichever is largest, and what fits into the buffers on the way.
TAKEN_BYTES = LIMIT_BYTES + 12 * 1024 * 1024


class Flood:
    """Sends its start, then the same again and again; counts what it got rid of."""

    def __init__(self, start: bytes, unit: bytes) -> None:
        self._start = start
        self._block = unit * max(1, 65536 // len(unit))
        self.written_bytes: list[int] = []

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self.written_bytes.append(0)
        number = len(self.written_bytes) - 1
        writer.write(self._start)
        while True:
            writer.write(self._block)
            await writer.drain()
            self.written_bytes[number] += len(self._block)
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Origin]:
    async with origin() as running:
        yield running


@pytest.fixture
def fetcher() -> Fetcher:
    table = {"source_private_cidrs": "127.0.0.1/32", "max_file_bytes": LIMIT_BYTES}
    return Fetcher(FetchOptions.of(load_settings({}, **table, source_timeout_s=20)))


async def fetch(fetcher: Fetcher, url: str) -> bytes | ServiceError:
    body = Received()
    try:
        await fetcher.fetch(url, body)
    except (InvalidParameter, FileSizeTooLarge) as error:
        return error
    return bytes(body.data)


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_source_without_end_is_cut_early(web: Origin, fetcher: Fetcher, name: str) -> None:
    flood = Flood(*ENDLESS[name])
    web.answers["/x"] = flood
    answer = await fetch(fetcher, f"{web.url}/x")
    assert isinstance(answer, ServiceError)
    assert answer.public_text in (UNUSABLE_URL_TEXT, "File size too large")
    assert "Timeout" not in answer.detail
    assert flood.written_bytes[0] < TAKEN_BYTES


async def test_many_sources_without_end_need_little_memory(web: Origin, fetcher: Fetcher) -> None:
    web.answers["/x"] = Flood(*ENDLESS["103 Early Hints"])
    tracemalloc.start()
    answers = await asyncio.gather(*[fetch(fetcher, f"{web.url}/x") for _ in range(SOURCES)])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(isinstance(answer, ServiceError) for answer in answers)
    assert peak_bytes < SOURCES * 1024 * 1024


class Iterations:
    """Counts the event loop's iterations for as long as it is entered."""

    def __init__(self) -> None:
        self.number = 0
        self._handle: asyncio.Handle | None = None

    def __enter__(self) -> "Iterations":
        self._tick()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._handle is not None
        self._handle.cancel()

    def _tick(self) -> None:
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)


async def test_all_fetches_together_parse_one_piece_per_iteration_of_the_loop(
    web: Origin, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: Counter[int] = Counter()
    sizes: list[int] = []
    original = HeadParser.feed

    def feed(self: HeadParser, data: bytes) -> Any:
        parsed[iterations.number] += 1
        sizes.append(len(data))
        return original(self, data)

    monkeypatch.setattr(HeadParser, "feed", feed)
    web.answers["/x"] = Flood(*ENDLESS["a header"])
    with Iterations() as iterations:
        await asyncio.gather(*[fetch(fetcher, f"{web.url}/x") for _ in range(SOURCES)])
    assert parsed.total() > SOURCES
    assert max(parsed.values()) == 1
    assert max(sizes) <= READ_BYTES


async def test_all_fetches_together_read_few_chunks_per_iteration_of_the_loop(
    web: Origin, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = 4
    given: Counter[int] = Counter()
    original = ChunkedBody.feed

    def feed(self: ChunkedBody, data: bytes) -> Iterator[bytes]:
        for piece in original(self, data):
            given[iterations.number] += 1
            yield piece

    monkeypatch.setattr(ChunkedBody, "feed", feed)
    web.answers["/x"] = Flood(*ENDLESS["chunks of a byte"])
    with Iterations() as iterations:
        await asyncio.gather(*[fetch(fetcher, f"{web.url}/x") for _ in range(sources)])
    assert given.total() > 10_000 * sources
    assert max(given.values()) <= 2 * PIECES_PER_ITERATION


async def test_a_bomb_is_unpacked_a_few_pieces_per_iteration_of_the_loop(
    web: Origin, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: Counter[int] = Counter()
    original = Received.write

    async def write(self: Received, piece: bytes) -> None:
        taken[iterations.number] += len(piece)
        await original(self, piece)

    monkeypatch.setattr(Received, "write", write)
    bomb = gzip.compress(bytes(50 * LIMIT_BYTES))
    web.answers["/x"] = OK + b"Content-Encoding: gzip\r\n\r\n" + bomb

    async def unpack() -> None:
        with pytest.raises(FileSizeTooLarge):
            await fetcher.fetch(f"{web.url}/x", Received())

    with Iterations() as iterations:
        await asyncio.gather(*[unpack() for _ in range(SOURCES)])
    assert taken.total() > SOURCES * LIMIT_BYTES * 0.9
    assert max(taken.values()) <= 2 * PIECES_PER_ITERATION * READ_BYTES


async def test_a_sound_source_is_fetched_meanwhile(web: Origin, fetcher: Fetcher) -> None:
    web.answers["/x"] = Flood(*ENDLESS["103 Early Hints"])
    web.answers["/photo"] = OK + b"\r\n" + bytes(LIMIT_BYTES)

    async def attack() -> None:
        while True:
            await fetch(fetcher, f"{web.url}/x")

    attacks = [asyncio.create_task(attack()) for _ in range(3)]
    assert await fetch(fetcher, f"{web.url}/photo") == bytes(LIMIT_BYTES)
    for task in attacks:
        task.cancel()
    for task in attacks:
        with suppress(asyncio.CancelledError):
            await task


async def test_a_loop_of_redirects_with_large_heads_is_ended(web: Origin, fetcher: Fetcher) -> None:
    head = b"HTTP/1.1 302 Found\r\nX: " + b"y" * 290_000 + b"\r\nLocation: /x\r\n\r\n"
    web.answers["/x"] = head
    answer = await fetch(fetcher, f"{web.url}/x")
    assert isinstance(answer, InvalidParameter)
    assert web.connections == 11
