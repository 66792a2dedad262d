import asyncio
import ipaddress
import socket
import ssl
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
    PrivateAddress,
    choose_addresses,
    make_tls_context,
    open_connection,
)
from upscaled.fetch.names import AddressInfo, NameLookup
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


async def test_bytes_that_are_not_read_stay_in_the_socket(web: Origin) -> None:
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
async def test_a_certificate_must_hold(
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
