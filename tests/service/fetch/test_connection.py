import asyncio
import gc
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.certificates import make_certificate
from tests.service.api.origin import Origin, origin
from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.connection import (
    MAX_ADDRESSES,
    READ_BYTES,
    AddressInfo,
    NameLookup,
    PrivateAddress,
    choose_addresses,
    make_tls_context,
    open_connection,
)
from upscaled.fetch.url import parse_url

LIMIT_BYTES = 1_000_000
LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)


def info(address: str) -> AddressInfo:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where: tuple[Any, ...] = (address, 80, 0, 0) if ":" in address else (address, 80)
    return (family, socket.SOCK_STREAM, 6, "", where)


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Origin]:
    async with origin() as running:
        yield running


def test_only_addresses_that_may_be_reached_are_dialled() -> None:
    found = [info(text) for text in ("10.0.0.1", "8.8.8.8", "::1", "fe80::1%eth0", "2606:4700::1")]
    chosen = choose_addresses(found, ())
    assert [each[4][0] for each in chosen] == ["8.8.8.8", "2606:4700::1"]


def test_a_private_address_is_named_with_the_setting_that_would_open_it() -> None:
    with pytest.raises(PrivateAddress) as refused:
        choose_addresses([info("10.0.0.1"), info("::1")], LOOPBACK)
    assert str(refused.value) == ("10.0.0.1, ::1 is a private address")


def test_a_name_of_many_addresses_is_tried_at_a_few() -> None:
    found = [info(f"8.8.8.{last}") for last in range(MAX_ADDRESSES + 5)]
    assert len(choose_addresses(found, ())) == MAX_ADDRESSES


async def test_bytes_are_counted_before_they_are_read(web: Origin) -> None:
    web.answers["/x"] = b"a" * (READ_BYTES + 5)
    url = parse_url(f"{web.url}/x")
    async with open_connection(url, NameLookup(), LOOPBACK, None, LIMIT_BYTES) as connection:
        connection.send(b"GET /x HTTP/1.1\r\n\r\n")
        read_bytes = 0
        while data := await connection.read():
            assert len(data) <= READ_BYTES
            read_bytes += len(data)
            assert connection.read_bytes == read_bytes
    assert read_bytes == READ_BYTES + 5


async def test_more_bytes_than_the_limit_are_not_given_out(web: Origin) -> None:
    async def read_all(limit_bytes: int) -> None:
        url = parse_url(f"{web.url}/x")
        async with open_connection(url, NameLookup(), LOOPBACK, None, limit_bytes) as connection:
            connection.send(b"GET /x HTTP/1.1\r\n\r\n")
            while await connection.read():
                assert connection.read_bytes <= limit_bytes

    web.answers["/x"] = b"a" * 1000
    await read_all(1000)
    with pytest.raises(FileSizeTooLarge):
        await read_all(999)


async def test_bytes_that_are_not_read_are_left_in_the_socket(web: Origin) -> None:
    """The source's bytes wait in the system's buffers, not in this process."""
    written = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    web.answers["/x"] = flood
    url = parse_url(f"{web.url}/x")
    async with open_connection(url, NameLookup(), LOOPBACK, None, LIMIT_BYTES) as connection:
        connection.send(b"GET /x HTTP/1.1\r\n\r\n")
        await connection.read()
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.05)
        assert written < 16 * 1024 * 1024


async def test_a_connection_ends_with_its_block(web: Origin) -> None:
    async def read_on(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    web.answers["/x"] = read_on
    url = parse_url(f"{web.url}/x")
    async with open_connection(url, NameLookup(), LOOPBACK, None, LIMIT_BYTES) as connection:
        connection.send(b"GET /x HTTP/1.1\r\n\r\n")
        while not web.heads:
            await asyncio.sleep(0.01)
    assert connection._writer.transport.is_closing()


def echo_once(listener: socket.socket, tls: ssl.SSLContext) -> None:
    """Echo what one client sends; one that ends the handshake gets nothing.

    In a thread: asyncio's server would leave its end of the connection open where the loop ends
    before the client's last bytes have arrived.
    """
    listener.settimeout(30)
    connection, _ = listener.accept()
    connection.settimeout(30)
    with suppress(OSError), tls.wrap_socket(connection, server_side=True) as wrapped:
        wrapped.sendall(wrapped.recv(READ_BYTES))


@pytest.mark.parametrize(
    ("names", "days", "is_trusted", "is_right"),
    [
        ("DNS:localhost,IP:127.0.0.1", 90, True, True),
        ("DNS:localhost,IP:127.0.0.1", 90, False, False),
        ("DNS:other.example", 90, True, False),
        ("DNS:localhost,IP:127.0.0.1", -1, True, False),
    ],
    ids=["sound", "of an unknown authority", "of another host", "ended"],
)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_must_be_trusted_valid_and_of_the_host(
    tmp_path: Path, host: str, names: str, days: int, is_trusted: bool, is_right: bool
) -> None:
    certificate = make_certificate(tmp_path, names, days)

    tls = make_tls_context()
    if is_trusted:
        tls.load_verify_locations(certificate.certificate)

    async def exchange(port: int) -> bytes:
        url = parse_url(f"https://{host}:{port}/")
        async with open_connection(url, NameLookup(), LOOPBACK, tls, LIMIT_BYTES) as connection:
            connection.send(b"hello\n")
            return await connection.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = asyncio.create_task(
            asyncio.to_thread(echo_once, listener, certificate.server_context())
        )
        if is_right:
            assert await exchange(listener.getsockname()[1]) == b"hello\n"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await exchange(listener.getsockname()[1])
        await echo


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
            self.let_go.wait(60)
        return self._original("127.0.0.1", *rest, **options)


async def test_hanging_lookups_delay_no_other_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, names = Hanging(monkeypatch), NameLookup()
    tasks = [asyncio.create_task(names.resolve(f"hanging{n}", 80, n)) for n in range(40)]
    while hanging.calls < 40:
        await asyncio.sleep(0.01)
    started = time.monotonic()
    assert await names.resolve("quick", 80)
    assert await asyncio.to_thread(lambda: "the pool of all others") is not None
    assert time.monotonic() - started < 30  # the others hang for 60 s
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
    async with asyncio.timeout(30):
        assert await names.resolve("quick", 80)


async def test_hanging_lookups_of_one_key_delay_no_other_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging, names = Hanging(monkeypatch), NameLookup(max_lookups=4, max_per_key=3)
    tasks = [asyncio.create_task(names.resolve(f"hanging{n}", 80, key_id=1)) for n in range(40)]
    while hanging.calls < 3:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        assert await names.resolve("quick", 80, key_id=2)
    assert hanging.calls == 3 + 1
    for task in tasks[20:]:
        task.cancel()
    hanging.let_go.set()
    async with asyncio.timeout(60):
        assert all(await asyncio.gather(*tasks[:20]))
        assert await names.resolve("quick", 80, key_id=1)
    assert hanging.calls == 20 + 2
    await asyncio.gather(*tasks[20:], return_exceptions=True)
    del task, tasks
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
        assert await names.resolve("localhost", 80)
