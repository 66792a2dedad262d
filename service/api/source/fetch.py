"""Fetching an `image_url`: bounded in size, time and hops, and guarded at every connection."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from service.api.body.budget import Share
from service.api.source.addresses import is_forbidden
from service.api.source.names import NameLookup
from service.api.source.url import UnusableUrl, check_url, parse_url
from service.config import Settings
from service.errors import FileSizeTooLarge

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "User-Agent": "upscaled",
    "Accept": "image/*, */*;q=0.5",
    "Accept-Encoding": "identity",
}

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]


class ForbiddenAddress(OSError):
    """An OSError, so that the connector goes on to the host's next address."""


async def fetch_source(url: str, settings: Settings, names: NameLookup, share: Share) -> bytes:
    """The bytes behind `url`, at most `max_file_bytes` of them.

    `share`: what the bytes count against.

    Raises:
        RateLimitExceeded: too many images are arriving at once.
        UnusableUrl: refused, unreachable, too slow, redirected too often, or not answering 200.
        FileSizeTooLarge: declared or found too large; reading stops there.
    """
    try:
        async with (
            asyncio.timeout(settings.source_timeout_s),
            _open_session(settings, names) as session,
        ):
            return await _follow(session, parse_url(url), settings, share)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise UnusableUrl(detail=_describe(error)) from error


def _describe(error: Exception) -> str:
    """What went wrong, for the log: with the address where it matters, never with the URL."""
    kind = type(error).__name__
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return kind
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{kind}: status {error.status}"
    return f"{kind}: {error}"


@asynccontextmanager
async def _open_session(
    settings: Settings, names: NameLookup
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for one fetch: nothing is shared with another client's, cookies least of all."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, where = info
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if is_forbidden(address, settings.source_private_cidrs):
            raise ForbiddenAddress(f"{address} is refused")
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        return connection

    connector = aiohttp.TCPConnector(
        socket_factory=open_socket, resolver=names, use_dns_cache=False, force_close=True
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=settings.source_timeout_s),
    ) as session:
        yield session


async def _follow(
    session: aiohttp.ClientSession, url: URL, settings: Settings, share: Share
) -> bytes:
    """Walk the redirects by hand: each hop is checked like the first."""
    for _ in range(MAX_REDIRECTS + 1):
        check_url(url)
        _check_host(url, settings.source_only_hosts)
        async with session.get(url, allow_redirects=False) as response:
            if response.status == 200:
                return await _read(response, share, settings.max_file_bytes)
            if response.status not in _REDIRECTS:
                raise UnusableUrl(detail=f"status {response.status}")
            target = url.join(parse_url(response.headers.get("Location", "")))
        if url.scheme == "https" and target.scheme != "https":
            raise UnusableUrl(detail="redirected from https to http")
        url = target
    raise UnusableUrl(detail="redirected too often")


def _check_host(url: URL, allowed_hosts: tuple[str, ...]) -> None:
    if allowed_hosts and (url.host or "").lower().rstrip(".") not in allowed_hosts:
        raise UnusableUrl(detail="the host is not on the list")


async def _read(response: aiohttp.ClientResponse, share: Share, limit_bytes: int) -> bytes:
    if (response.content_length or 0) > limit_bytes:
        raise FileSizeTooLarge(detail=f"declared {response.content_length} bytes")
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise FileSizeTooLarge(detail=f"read {size_bytes} bytes")
        share.take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)
