"""Connect to a source: resolve its name, and dial only the addresses that are allowed.

Nothing resolves again between the check and the connection, so a name that changes its address in
between (DNS rebinding) gains nothing. Names are looked up in threads of their own: a lookup may
hang for half a minute, and nothing can stop it. In the pool of threads that everything else uses,
a handful would hold up all fetches.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import aiohappyeyeballs

from upscaled.errors import FileSizeTooLarge
from upscaled.fetch.url import Network, SourceUrl, is_forbidden

# What is read at once. The transport holds at most a few times as much before it stops reading.
READ_BYTES: Final = 16 * 1024
MAX_ADDRESSES: Final = 16
HAPPY_EYEBALLS_DELAY_S: Final = 0.25  # RFC 8305, section 8
MAX_LOOKUPS: Final = 64
# A key whose names all lead to a name server that does not answer leaves these for the others.
MAX_LOOKUPS_PER_KEY: Final = 16

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""family, kind, protocol, canonical name, socket address: as of `socket.getaddrinfo`."""


class PrivateAddress(OSError):
    """Refusal of every address of a host; the text is for the log only."""


class NameLookup:
    """Resolves host names, at most `max_lookups` at a time and `max_per_key` of one API key.

    A thread whose caller gave up uses its slot until its lookup ends.
    """

    def __init__(
        self, max_lookups: int = MAX_LOOKUPS, max_per_key: int = MAX_LOOKUPS_PER_KEY
    ) -> None:
        self._threads = ThreadPoolExecutor(max_lookups, thread_name_prefix="names")
        self._max_per_key = max_per_key
        # By key, while it looks a name up or waits to: each lookup holds its key's semaphore.
        self._slots_of_key: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def resolve(self, host: str, port: int, key_id: int = 0) -> list[AddressInfo]:
        """Return the addresses to connect to for TCP, in the system's order of preference.

        Raises:
            OSError: no such name, no answer about it, or no thread to look it up.
            UnicodeError: no name at all (a label of more than 63 characters, or an empty one).
        """
        own = self._slots_of_key.setdefault(key_id, asyncio.Semaphore(self._max_per_key))
        await own.acquire()
        try:
            lookup: Future[Any] = self._threads.submit(
                socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
            )
        except RuntimeError as error:
            own.release()
            raise OSError(str(error)) from error
        lookup.add_done_callback(partial(_release, asyncio.get_running_loop(), own))
        answer: list[AddressInfo] = await asyncio.wrap_future(lookup)
        return answer


def _release(loop: asyncio.AbstractEventLoop, slot: asyncio.Semaphore, _: Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(slot.release)


class SourceConnection:
    """Connection to a source for one request; every byte is counted before it is parsed."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit_bytes: int
    ) -> None:
        self.read_bytes = 0
        self._limit_bytes = limit_bytes
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def read(self) -> bytes:
        """Return the next bytes, `READ_BYTES` at most; none at the connection's end.

        FileSizeTooLarge: more than `limit_bytes` have come, whatever they are.
        """
        data = await self._reader.read(READ_BYTES)
        self.read_bytes += len(data)
        if self.read_bytes > self._limit_bytes:
            raise FileSizeTooLarge(detail=f"received {self.read_bytes} bytes")
        return data


@asynccontextmanager
async def open_connection(
    url: SourceUrl,
    names: NameLookup,
    allowed: Sequence[Network],
    tls: ssl.SSLContext | None,
    limit_bytes: int,
    key_id: int = 0,
) -> AsyncIterator[SourceConnection]:
    """Connect to the URL's host until the block ends.

    Args:
        allowed: private networks that may be reached.
        tls: None for http.
        limit_bytes: most bytes of head and body together.
        key_id: the API key whose lookup it is.

    Raises:
        PrivateAddress: the host has no address that may be reached.
        OSError: no such host, no connection, or a certificate that does not hold (`ssl.SSLError`).
        UnicodeError: a host that can be no name.
    """
    found = await names.resolve(url.host, url.port, key_id)
    dialled = await aiohappyeyeballs.start_connection(
        choose_addresses(found, allowed), happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, interleave=1
    )
    try:
        reader, writer = await asyncio.open_connection(
            sock=dialled,
            limit=READ_BYTES,
            ssl=tls,
            server_hostname=url.host.rstrip(".") if tls else None,
        )
    except BaseException:
        dialled.close()
        raise
    try:
        yield SourceConnection(reader, writer, limit_bytes)
    finally:
        writer.transport.abort()


def choose_addresses(found: Iterable[AddressInfo], allowed: Sequence[Network]) -> list[AddressInfo]:
    """Return the allowed of a host's first `MAX_ADDRESSES` addresses, or raise `PrivateAddress`."""
    considered = list(found)[:MAX_ADDRESSES]
    refused = [info for info in considered if is_forbidden(_address(info), allowed)]
    if len(refused) == len(considered):
        shown = ", ".join(str(_address(info)) for info in refused)
        raise PrivateAddress(f"{shown} is a private address")
    return [info for info in considered if info not in refused]


def _address(info: AddressInfo) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(info[4][0]).partition("%")[0])


def make_tls_context() -> ssl.SSLContext:
    """Make a context with the system's authorities and checked host names, for HTTP/1.1."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
