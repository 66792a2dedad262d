import asyncio
import gzip
import os
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from service.api.body.budget import Budget
from service.api.source import fetch
from service.api.source.fetch import MAX_REDIRECTS
from service.api.source.names import NameLookup
from service.api.source.url import UNUSABLE_URL_TEXT
from service.config import Settings, load_settings
from service.errors import FileSizeTooLarge, InvalidParameter, RateLimitExceeded
from tests.service.api.origin import Origin, origin, redirect, response

PHOTO = os.urandom(5000)
LIMIT_BYTES = 10_000


def settings(**changes: Any) -> Settings:
    given = {
        "source_private_cidrs": "127.0.0.1/32",
        "max_file_bytes": LIMIT_BYTES,
        "source_timeout_s": 5,
    }
    return load_settings({}, **{**given, **changes})


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Origin]:
    """A server at an address that is allowed."""
    async with origin() as running:
        running.answers["/photo"] = response(PHOTO)
        yield running


@pytest_asyncio.fixture
async def inside() -> AsyncIterator[Origin]:
    """A server at an address that is not."""
    async with origin("127.0.0.2") as running:
        running.answers["/photo"] = response(PHOTO)
        yield running


async def fetch_source(url: str, table: Settings) -> bytes:
    with Budget(10 * table.max_file_bytes).share(1) as share:
        return await fetch.fetch_source(url, table, NameLookup(), share)


async def assert_unusable(url: str, **changes: Any) -> None:
    with pytest.raises(InvalidParameter) as refused:
        await fetch_source(url, settings(**changes))
    assert refused.value.public_text == UNUSABLE_URL_TEXT


async def test_the_bytes_come_as_they_are(web: Origin) -> None:
    web.answers["/photo?a=%2f"] = response(PHOTO)
    assert await fetch_source(f"{web.url}/photo?a=%2f#top", settings()) == PHOTO


async def test_nothing_of_ours_is_told(web: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    web.answers["/first"] = response(PHOTO, "Set-Cookie: a=b; Path=/")
    await fetch_source(f"{web.url}/first", settings())
    await fetch_source(f"{web.url}/photo", settings())
    names = {line.partition(":")[0].lower() for line in web.heads[1].splitlines()[1:] if line}
    assert names - {"connection"} == {"host", "user-agent", "accept", "accept-encoding"}
    assert "accept-encoding: identity" in web.heads[1].lower()


async def test_a_compressed_answer_is_never_unpacked(web: Origin) -> None:
    bomb = gzip.compress(bytes(5_000_000))
    assert len(bomb) < LIMIT_BYTES
    web.answers["/bomb"] = response(bomb, "Content-Encoding: gzip")
    assert await fetch_source(f"{web.url}/bomb", settings()) == bomb


@pytest.mark.parametrize(
    "status",
    [
        *("201 Created", "204 No Content", "206 Partial Content", "300 Multiple Choices"),
        *("304 Not Modified", "400 Bad Request", "401 Unauthorized", "404 Not Found"),
        *("500 Oops", "503 Busy"),
    ],
)
async def test_anything_but_200_is_unusable(web: Origin, status: str) -> None:
    web.answers["/x"] = response(b"", status=status)
    await assert_unusable(f"{web.url}/x")


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 999999 OK\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_a_broken_answer_is_unusable(web: Origin, raw: bytes) -> None:
    web.answers["/x"] = raw
    await assert_unusable(f"{web.url}/x")


async def test_no_server_and_no_such_name_read_the_same(web: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    await assert_unusable(f"http://127.0.0.1:{port}/")
    await assert_unusable("http://no-such-host.invalid/")
    await assert_unusable(f"https://127.0.0.1:{web.port}/photo", source_timeout_s=0.5)


async def test_a_file_of_the_limit_fits_and_one_byte_more_does_not(web: Origin) -> None:
    web.answers["/fits"] = response(bytes(LIMIT_BYTES))
    web.answers["/over"] = response(bytes(LIMIT_BYTES + 1))
    assert len(await fetch_source(f"{web.url}/fits", settings())) == LIMIT_BYTES
    with pytest.raises(FileSizeTooLarge):
        await fetch_source(f"{web.url}/over", settings())


async def test_a_declared_size_is_refused_before_it_is_read(web: Origin) -> None:
    web.answers["/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    with pytest.raises(FileSizeTooLarge):
        await fetch_source(f"{web.url}/x", settings())


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", "Connection: close"])
async def test_an_endless_answer_is_read_no_further_than_the_limit(web: Origin, head: str) -> None:
    written = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        block = bytes(65536)
        while True:
            writer.write(b"10000\r\n" + block + b"\r\n" if "chunked" in head else block)
            await writer.drain()
            written += len(block)

    web.answers["/x"] = flood
    tracemalloc.start()
    with pytest.raises(FileSizeTooLarge):
        await fetch_source(f"{web.url}/x", settings(max_file_bytes=2_000_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 6_000_000
    assert written < 20_000_000


async def test_a_slow_answer_ends_with_the_time_limit(web: Origin) -> None:
    async def dribble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        for _ in range(5000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    web.answers |= {"/slow": dribble, "/silent": say_nothing}
    for path in ("/slow", "/silent"):
        started = time.monotonic()
        await assert_unusable(web.url + path, source_timeout_s=0.3)
        assert 0.25 < time.monotonic() - started < 2


async def test_redirects_are_followed_up_to_the_limit(web: Origin) -> None:
    web.answers["/0"] = response(PHOTO)
    for count in range(1, MAX_REDIRECTS + 2):
        web.answers[f"/{count}"] = redirect(f"/{count - 1}")
    assert await fetch_source(f"{web.url}/{MAX_REDIRECTS}", settings()) == PHOTO
    await assert_unusable(f"{web.url}/{MAX_REDIRECTS + 1}")


async def test_the_time_limit_spans_all_hops(web: Origin) -> None:
    async def wait(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(redirect("/wait"))

    web.answers["/wait"] = wait
    started = time.monotonic()
    await assert_unusable(f"{web.url}/wait", source_timeout_s=0.3)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_every_kind_of_redirect(web: Origin, status: str) -> None:
    web.answers["/x"] = redirect(f"{web.url}/photo", status)
    assert await fetch_source(f"{web.url}/x", settings()) == PHOTO


@pytest.mark.parametrize(
    "where",
    [
        *("", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://u@127.0.0.1/"),
        *("http://[::1", "http://127.0.0.1:22/", "data:image/png;base64,AAAA", "\xff\xfe"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(web: Origin, where: str) -> None:
    web.answers["/x"] = redirect(where)
    await assert_unusable(f"{web.url}/x")


async def test_what_is_fetched_counts_against_the_memory_of_all(web: Origin) -> None:
    budget = Budget(len(PHOTO))
    for is_room in (True, False):
        with budget.share(1) as share:
            share.take(0 if is_room else 1)
            fetching = fetch.fetch_source(f"{web.url}/photo", settings(), NameLookup(), share)
            if is_room:
                assert await fetching == PHOTO
            else:
                with pytest.raises(RateLimitExceeded):
                    await fetching
    assert budget.held_bytes == 0


# The guard: counted at the listener, not by the answer.

SPELLINGS = [
    *("127.0.0.2", "127.2", "0x7f.2", "0x7f000002", "2130706434", "0177.0.0.2", "127.0.0.2."),
    *("[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "１２７.0.0.2", "127。0。0。2"),
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_reaches_a_forbidden_address(inside: Origin, host: str) -> None:
    await assert_unusable(f"http://{host}:{inside.port}/photo")
    assert inside.connections == 0


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_redirect_reaches_a_forbidden_address(
    web: Origin, inside: Origin, host: str
) -> None:
    web.answers["/x"] = redirect(f"http://{host}:{inside.port}/photo")
    await assert_unusable(f"{web.url}/x")
    assert (web.connections, inside.connections) == (1, 0)


async def test_a_name_is_judged_by_the_address_it_leads_to(
    web: Origin, inside: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the name was judged harmless a moment ago: the guard sits at the connection."""
    answers = ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"]
    ports = {"127.0.0.1": web.port, "127.0.0.2": inside.port}

    def resolve(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        address = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, ports[address]))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for _ in range(2):
        assert await fetch_source("http://rebinding.example:8080/photo", settings()) == PHOTO
        await assert_unusable("http://rebinding.example:8080/photo")
    assert (web.connections, inside.connections) == (2, 0)


async def test_of_several_addresses_only_the_allowed_are_tried(
    web: Origin, inside: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        both = (("127.0.0.2", inside.port), ("127.0.0.1", web.port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in both]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert await fetch_source("http://both.example/photo", settings()) == PHOTO
    assert (web.connections, inside.connections) == (1, 0)


async def test_a_list_of_hosts_is_a_further_limit(web: Origin) -> None:
    limited = settings(source_only_hosts="localhost")
    assert await fetch_source(f"http://LocalHost:{web.port}/photo", limited) == PHOTO
    await assert_unusable(f"{web.url}/photo", source_only_hosts="localhost")
    web.answers["/x"] = redirect(f"{web.url}/photo")
    await assert_unusable(f"http://localhost:{web.port}/x", source_only_hosts="localhost")


async def test_a_listed_host_is_still_guarded(inside: Origin) -> None:
    await assert_unusable(f"{inside.url}/photo", source_only_hosts="127.0.0.2")
    assert inside.connections == 0


async def test_many_slow_sources_do_not_hold_up_a_quick_one(web: Origin) -> None:
    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    web.answers["/silent"] = say_nothing
    slow = [asyncio.create_task(fetch_source(f"{web.url}/silent", settings())) for _ in range(100)]
    while web.connections < 100:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    assert await fetch_source(f"{web.url}/photo", settings()) == PHOTO
    assert time.monotonic() - started < 1
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
