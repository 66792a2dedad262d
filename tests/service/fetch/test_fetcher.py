import asyncio
import gzip
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.service.api.origin import Origin, origin, redirect, response
from tests.service.fetch.received import Received
from upscaled.config import load_settings
from upscaled.errors import InvalidParameter
from upscaled.fetch.fetcher import Fetcher
from upscaled.fetch.messages import FetchOptions
from upscaled.fetch.url import UNUSABLE_URL_TEXT

PHOTO = os.urandom(5000)
LIMIT_BYTES = 10_000


def settings(**changes: Any) -> FetchOptions:
    table = {
        "source_private_cidrs": "127.0.0.1/32",
        "max_file_bytes": LIMIT_BYTES,
        "source_timeout_s": 5,
    }
    return FetchOptions.of(load_settings({}, **{**table, **changes}))


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


async def fetch_source(url: str, options: FetchOptions) -> bytes:
    body = Received()
    await Fetcher(options).fetch(url, body)
    return bytes(body.data)


async def assert_unusable(url: str, **changes: Any) -> str:
    """Return the detail for the log."""
    with pytest.raises(InvalidParameter) as refused:
        await fetch_source(url, settings(**changes))
    assert refused.value.public_text == UNUSABLE_URL_TEXT
    return refused.value.detail


async def test_the_body_is_returned_unchanged(web: Origin) -> None:
    web.answers["/photo?a=%2f"] = response(PHOTO)
    assert await fetch_source(f"{web.url}/photo?a=%2f#top", settings()) == PHOTO


async def test_a_request_has_no_headers_of_clients_or_proxies(
    web: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    web.answers["/first"] = response(PHOTO, "Set-Cookie: a=b; Path=/")
    fetcher = Fetcher(settings())
    for path in ("/first", "/photo"):
        await fetcher.fetch(web.url + path, Received())
    names = {line.partition(":")[0].lower() for line in web.heads[1].splitlines()[1:] if line}
    assert names - {"connection"} == {"host", "user-agent", "accept", "accept-encoding"}
    assert "accept-encoding: identity" in web.heads[1].lower()


async def test_a_compressed_body_may_be_larger_than_the_limit(web: Origin) -> None:
    photo = os.urandom(LIMIT_BYTES)
    packed = gzip.compress(photo, 0)
    assert len(packed) > LIMIT_BYTES
    for framing in (f"Content-Length: {len(packed)}", "Transfer-Encoding: chunked"):
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n{framing}\r\n\r\n".encode()
        web.answers["/x"] = head + (chunks if "chunked" in framing else packed)
        assert await fetch_source(f"{web.url}/x", settings()) == photo


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


async def test_unreachable_hosts_give_the_same_error(web: Origin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    await assert_unusable(f"http://127.0.0.1:{port}/")
    assert "gaierror" in await assert_unusable("http://no-such-host.invalid/")
    assert await assert_unusable(f"http://{'a' * 64}.example/") == "UnicodeError"
    await assert_unusable(f"https://127.0.0.1:{web.port}/photo", source_timeout_s=0.5)


async def test_the_time_limit_spans_all_hops(web: Origin) -> None:
    async def wait(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(redirect("/wait"))

    web.answers["/wait"] = wait
    detail = await assert_unusable(f"{web.url}/wait", source_timeout_s=0.3)
    assert detail == "not finished within 0.3 s"  # rather than redirected too often


@pytest.mark.parametrize("status", ["300 Z", "301 A", "302 B", "303 C", "307 D", "308 E"])
async def test_every_kind_of_redirect_is_followed(web: Origin, status: str) -> None:
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


# The guard: counted at the listener, not by the answer.

SPELLINGS = [
    *("127.0.0.2", "127.2", "0x7f.2", "0x7f000002", "2130706434", "0177.0.0.2", "127.0.0.2."),
    *("[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "１２７.0.0.2", "127。0。0。2"),
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_neither_a_spelling_nor_a_redirect_to_it_reaches_a_forbidden_address(
    web: Origin, inside: Origin, host: str
) -> None:
    await assert_unusable(f"http://{host}:{inside.port}/photo")
    assert inside.connections == 0
    web.answers["/x"] = redirect(f"http://{host}:{inside.port}/photo")
    await assert_unusable(f"{web.url}/x")
    assert (web.connections, inside.connections) == (1, 0)


async def test_a_name_is_checked_by_the_address_it_resolves_to(
    web: Origin, inside: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the name resolved to an allowed address before: the guard is at the connection."""
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


@pytest.mark.parametrize("listed", ["localhost.", "LOCALHOST", "exämple.invalid, localhost"])
async def test_a_list_of_hosts_is_compared_as_names_are(web: Origin, listed: str) -> None:
    limited = settings(source_only_hosts=listed)
    assert await fetch_source(f"http://LocalHost:{web.port}/photo", limited) == PHOTO


@pytest.mark.parametrize("host", ["exämple.invalid", "xn--exmple-cua.invalid", "EXÄMPLE.invalid."])
async def test_a_listed_name_may_be_spelt_as_names_may(host: str) -> None:
    detail = await assert_unusable(f"http://{host}/", source_only_hosts="exämple.invalid")
    assert "gaierror" in detail  # it was looked up
    detail = await assert_unusable(f"http://not-{host}/", source_only_hosts="exämple.invalid")
    assert detail == "the host is not on the list"


async def test_a_listed_host_is_still_guarded_and_the_log_names_the_setting(inside: Origin) -> None:
    detail = await assert_unusable(f"{inside.url}/photo", source_only_hosts="127.0.0.2")
    assert detail == "127.0.0.2 is a private address, see UPSCALED_SOURCE_PRIVATE_CIDRS"
    assert inside.connections == 0


async def test_many_slow_sources_do_not_hold_up_a_quick_one(web: Origin) -> None:
    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    web.answers["/silent"] = say_nothing
    slow = [asyncio.create_task(fetch_source(f"{web.url}/silent", settings())) for _ in range(100)]
    while web.connections < 100:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    assert await fetch_source(f"{web.url}/photo", settings()) == PHOTO
    assert time.monotonic() - started < 30  # the others say nothing for 60 s
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_port_that_is_refused_is_named_with_those_that_are_allowed() -> None:
    detail = await assert_unusable("http://example.com:81/")
    assert detail == "port 81: of those below 1024 only 80 and 443 are allowed"
