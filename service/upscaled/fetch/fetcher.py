"""Fetch an `image_url`: bounded in size, time, hops and work, and guarded at every connection.

`head`, `framing` and `codings` parse what `connection` reads, without I/O. All fetches share one
parse slot for an iteration of the event loop, in which one read or 64 pieces are parsed. The hops
of one fetch share cookies, by `http.cookiejar`, which decides hosts, paths, domains and `Secure`
(RFC 6265, and no cookies for whole country domains): an image host may set one on a redirect that
the next needs. No cookie goes from one client's image to another's.
"""

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Iterable
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import SimpleNamespace
from typing import Final, Protocol
from urllib.request import Request

from upscaled.errors import FileSizeTooLarge
from upscaled.fetch import connection as connections
from upscaled.fetch.codings import choose_stages, finish, unpack
from upscaled.fetch.connection import open_connection as connect
from upscaled.fetch.framing import choose_framing, max_framed_bytes
from upscaled.fetch.head import MAX_HEAD_BYTES, HeadParser, ResponseHead
from upscaled.fetch.messages import FetchOptions, PostRequest
from upscaled.fetch.url import SourceUrl, UnusableUrl, encode_host, join_url, parse_url

MAX_REDIRECTS: Final = 10
PIECES_PER_ITERATION: Final = 64
# Packing what cannot be packed costs 5 bytes for each 16 KB (RFC 1951, section 3.2.4) and a header.
PACKING_BYTES_PER_BYTE: Final = 1 / 64
PACKING_BYTES: Final = 1024

_NOT_MODIFIED: Final = 304
_HEADERS: Final = (
    "User-Agent: upscaled",
    "Accept: image/*, */*;q=0.5",
    "Accept-Encoding: identity",
    "Connection: close",
)
# curl's limits, of lib/cookie.h: MAX_SET_COOKIE_AMOUNT, MAX_NAME (of one cookie), and
# MAX_COOKIE_HEADER_LEN.
MAX_COOKIES_PER_ANSWER: Final = 50
MAX_COOKIE_BYTES: Final = 4096
MAX_HEADER_CHARACTERS: Final = 8190

# An age without a number, or of more seconds than a fetch takes by far: `CookieJar` warns, with a
# trace, of ages that are no numbers or that no float can hold.
_USELESS_AGE: Final = re.compile(
    rb";[ \t]*max-age(?![ \t]*=[ \t\"]*-?[0-9]{1,9}[ \t\"]*(?:;|$))[^;]*", re.IGNORECASE
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Body(Protocol):
    """Receiver of a source's bytes."""

    async def write(self, piece: bytes) -> None:
        """Receive the next bytes, which may be none. What it raises ends the fetch."""


class Fetcher:
    """Fetches sources for all requests, which share name lookup, TLS context and parse slot."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._allowed = options.networks()
        self._names = connections.NameLookup()
        self._only_hosts = frozenset(map(_comparable, options.only_hosts))
        packing_bytes = int(options.max_file_bytes * PACKING_BYTES_PER_BYTE) + PACKING_BYTES
        self._packed_limit_bytes = options.max_file_bytes + packing_bytes
        self._wire_limit_bytes = MAX_HEAD_BYTES + max_framed_bytes(self._packed_limit_bytes)
        self._tls: ssl.SSLContext | None = None
        self._parse_slot = asyncio.Lock()

    async def fetch(self, url: str, body: Body, key_id: int = 0) -> None:
        """Write the bytes behind `url` to `body`, at most `max_file_bytes`, for an API key.

        Raises:
            UnusableUrl: refused, unreachable, too slow, redirected too often, not answering 200,
                or answering with a body that has no end.
            FileSizeTooLarge: declared or found too large; reading stops there.
        """
        try:
            async with asyncio.timeout(self._options.timeout_s):
                await self._follow(parse_url(url), body, key_id)
        except (OSError, ValueError) as error:
            detail = _describe(error, self._options.timeout_s, "UPSCALED_SOURCE_PRIVATE_CIDRS")
            raise UnusableUrl(detail=detail) from error

    async def post(self, request: PostRequest, body: Body) -> None:
        """Send a request with a body, and write the status of its answer to `body`, in digits.

        No redirect is followed, and nothing behind the answer's head is read.

        Raises:
            UnusableUrl: refused, unreachable, too slow, or no HTTP.
            FileSizeTooLarge: the answer's head has no end.
        """
        allowed = [ipaddress.ip_network(text) for text in request.private_cidrs]
        try:
            async with asyncio.timeout(request.timeout_s):
                url = parse_url(request.url)
                tls = await self._load_tls() if url.scheme == "https" else None
                limit_bytes = MAX_HEAD_BYTES + connections.READ_BYTES
                async with connect(
                    url, self._names, allowed, tls, limit_bytes, request.key_id
                ) as connection:
                    connection.send(render_post(url, request))
                    head, _ = await self._read_head(connection)
                    await body.write(b"%d" % head.status)
        except (OSError, ValueError) as error:
            detail = _describe(error, request.timeout_s, "UPSCALED_WEBHOOK_CIDRS")
            raise UnusableUrl(detail=detail) from error

    async def _follow(self, url: SourceUrl, body: Body, key_id: int) -> None:
        """Follow redirects; each hop is checked like the first."""
        cookies = CookieStore()
        for _ in range(MAX_REDIRECTS + 1):
            if self._only_hosts and _comparable(url.host) not in self._only_hosts:
                raise UnusableUrl(detail="the host is not on the list")
            tls = await self._load_tls() if url.scheme == "https" else None
            async with connect(
                url, self._names, self._allowed, tls, self._wire_limit_bytes, key_id
            ) as connection:
                connection.send(render_request(url, cookies.header_for(url)))
                head, rest = await self._read_head(connection)
                if head.status == 200:
                    await self._read_body(connection, head, rest, body)
                    return
            cookies.note(url, head)
            url = find_target(url, head)
        raise UnusableUrl(detail=f"redirected more than {MAX_REDIRECTS} times")

    async def _load_tls(self) -> ssl.SSLContext:
        """Return the TLS context, made when it is first needed: it takes 20 ms and more."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(connections.make_tls_context)
        return self._tls

    async def _await_parse_slot(self) -> None:
        """Wait in order for an iteration of the event loop in which no other fetch parses."""
        async with self._parse_slot:
            await asyncio.sleep(0)

    async def _read_head(
        self, connection: connections.SourceConnection
    ) -> tuple[ResponseHead, bytes]:
        parser = HeadParser()
        while data := await connection.read():
            await self._await_parse_slot()
            head = parser.feed(data)
            if head is not None:
                return head, parser.rest
        raise UnusableUrl(detail="the answer ended within its head")

    async def _read_body(
        self, connection: connections.SourceConnection, head: ResponseHead, data: bytes, body: Body
    ) -> None:
        """Read and decompress the body, of which `data` came with the head."""
        limit_bytes = self._options.max_file_bytes
        stages = choose_stages(head, limit_bytes)
        framing = choose_framing(head, self._packed_limit_bytes if stages else limit_bytes)
        size_bytes = 0
        while True:
            unpacked = (piece for part in framing.feed(data) for piece in unpack(stages, part))
            size_bytes = await self._write(unpacked, body, size_bytes)
            if framing.is_complete:
                break
            data = await connection.read()
            await self._await_parse_slot()
            if not data:
                framing.finish()
                break
        await self._write(finish(stages), body, size_bytes)

    async def _write(self, pieces: Iterable[bytes], body: Body, size_bytes: int) -> int:
        """Write pieces after `size_bytes` earlier ones; return the new total."""
        for number, piece in enumerate(pieces, 1):
            size_bytes += len(piece)
            if size_bytes > self._options.max_file_bytes:
                raise FileSizeTooLarge(detail=f"read {size_bytes} bytes")
            await body.write(piece)
            if number % PIECES_PER_ITERATION == 0:
                await self._await_parse_slot()
        return size_bytes


def render_request(url: SourceUrl, cookie: str) -> bytes:
    """Return the request for `url`, which holds nothing of this service's own clients."""
    lines = [f"GET {url.target} HTTP/1.1", f"Host: {url.authority}", *_HEADERS]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def render_post(url: SourceUrl, request: PostRequest) -> bytes:
    """Return a request with a body; the values of its fields are this service's own."""
    content = request.body.encode()
    fields = {
        "Host": url.authority,
        "User-Agent": "upscaled",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **request.headers,
    }
    lines = [f"POST {url.target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


def find_target(url: SourceUrl, head: ResponseHead) -> SourceUrl:
    """Return the target of a redirect: any 3xx with a Location, as in curl.

    UnusableUrl: no redirect, or one to an address that is refused or no longer https.
    """
    location = head.last("location")
    if not 300 <= head.status < 400 or head.status == _NOT_MODIFIED or location is None:
        raise UnusableUrl(detail=f"status {head.status}")
    target = join_url(url, location)
    if url.scheme == "https" and target.scheme != "https":
        raise UnusableUrl(detail="redirected from https to http")
    return target


def _comparable(host: str) -> str:
    """Return a host name for comparison: in ASCII, without the root's dot."""
    try:
        return encode_host(host).rstrip(".")
    except UnusableUrl:  # an IPv6 address
        return host


def _describe(error: Exception, limit_s: float, setting: str) -> str:
    """Describe an error for the log without the URL.

    limit_s: the time that all of it may take. setting: would allow a private address.
    """
    if isinstance(error, connections.PrivateAddress):
        return f"{error}, see {setting}"
    if isinstance(error, TimeoutError) and not error.errno:  # ours, not the network's
        return f"not finished within {limit_s:g} s"
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, OSError) and str(error) else kind


class CookieStore:
    def __init__(self) -> None:
        self._jar = CookieJar(
            DefaultCookiePolicy(
                strict_domain=True,  # nothing for all of .co.uk
                strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain,  # host-only cookies
            )
        )

    def note(self, url: SourceUrl, head: ResponseHead) -> None:
        """Keep the cookies of the response to `url`, without overlong or control-laden ones."""
        values = [
            _USELESS_AGE.sub(b"", value)
            for value in head.fields.get("set-cookie", [])
            if len(value) <= MAX_COOKIE_BYTES and not _CONTROL.search(value)
        ]
        message = Message()
        for value in values[:MAX_COOKIES_PER_ANSWER]:
            message["Set-Cookie"] = value.decode("latin-1")
        response = SimpleNamespace(info=lambda: message)
        self._jar.extract_cookies(response, _request(url))  # type: ignore[arg-type]

    def header_for(self, url: SourceUrl) -> str:
        """Return the value of the Cookie header for a request to `url`, or an empty text."""
        request = _request(url)
        self._jar.add_cookie_header(request)
        header = request.get_header("Cookie") or ""
        if len(header) <= MAX_HEADER_CHARACTERS:
            return header
        return header[:MAX_HEADER_CHARACTERS].rpartition("; ")[0]


def _request(url: SourceUrl) -> Request:
    return Request(str(url))  # noqa: S310 - nothing is opened: the jar only reads its URL
