"""Parse an `image_url`, before anything is resolved or connected.

No library keeps these promises at once: path and query are sent byte for byte (a signature may
cover them), only what no request line may hold is escaped, and no text raises anything but
UnusableUrl.

Of the addresses that a URL may lead to, Python's `is_global` alone lets through NAT64, 6to4,
IPv4-compatible, ISATAP, multicast and site-local ones, so the table is written out (IANA
special-purpose registries, RFC 6890).
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote, urljoin

import idna

from upscaled.errors import InvalidParameter

MAX_URL_CHARACTERS: Final = 8192
MAX_LOCATION_BYTES: Final = 16 * 1024  # signed ones of object stores take up to 10 KB
MAX_HOST_CHARACTERS: Final = 254  # RFC 1035, section 2.3.4, and the root's dot
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
FIRST_UNPRIVILEGED_PORT: Final = 1024

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NEEDS_QUOTING: Final = re.compile(r"(?:[^\x21-\x7e]|[\"<>\\^`{|}])+")
_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]+)(?::([0-9]{0,5}))?")
_HOST_NAME: Final = re.compile(r"[a-z0-9._-]+")
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")

# One text for every failure: a client learns nothing about the network behind this service.
UNUSABLE_URL_TEXT: Final = "image_url could not be fetched"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORBIDDEN_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network"; 0.0.0.0 reaches the host itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved and broadcast
        "168.63.129.16/32",  # Azure's wire server, public by number only
    )
)
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_FORBIDDEN_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: a relay would unwrap it
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_ISATAP_MARKS: Final = (0x00005EFE, 0x02005EFE)


class UnusableUrl(InvalidParameter):
    """Refusal of an `image_url`, whatever its cause."""

    default_text = UNUSABLE_URL_TEXT


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """Parsed URL: lower-case ASCII host or address without brackets; path and query as sent."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def authority(self) -> str:
        """Return the value of the Host header, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def check_source_url(value: object) -> str:
    """Return the URL's text without white space around it, once it is one that could be fetched."""
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS:
        raise UnusableUrl(detail="not a URL")
    text = value.strip()
    parse_url(text)
    return text


def parse_url(text: str) -> SourceUrl:
    """Parse a URL; escapes stay as they are, and what cannot be sent as it is gets escaped.

    UnusableUrl: not http or https, no host, a user name, a port that no web server uses, a control
    character, or a broken syntax.
    """
    if _CONTROL.search(text):
        raise UnusableUrl(detail="has control characters")
    parts = _ABSOLUTE.match(text)
    if parts is None:
        raise UnusableUrl(detail="neither http nor https")
    scheme, authority, target = parts[1].lower(), parts[2], quote_target(parts[3])
    host, port = _split_authority(authority, DEFAULT_PORTS[scheme])
    return SourceUrl(scheme, host, port, target if target.startswith("/") else "/" + target)


def join_url(base: SourceUrl, location: bytes) -> SourceUrl:
    """Resolve a Location header's value against the URL that answered with it.

    Bytes outside ASCII are UTF-8 or else kept as they are: a Latin-1 `é` is asked for as `%E9`.
    """
    if len(location) > MAX_LOCATION_BYTES:
        raise UnusableUrl(detail=f"redirected to an address of {len(location)} bytes")
    try:
        text = location.decode().strip()
    except UnicodeDecodeError:
        text = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], location).decode().strip()
    if not text or _CONTROL.search(text):
        raise UnusableUrl(detail="redirected to nowhere")
    if _SCHEME.match(text):
        return parse_url(text)
    if text.startswith("//"):
        return parse_url(f"{base.scheme}:{text}")
    relative = quote_target(text.partition("#")[0])
    if relative.startswith("/"):
        return replace(base, target=relative)
    try:
        return parse_url(urljoin(str(base), relative))
    except ValueError:
        raise UnusableUrl(detail="redirected to a broken address") from None


def quote_target(text: str) -> str:
    """Escape what cannot stand in a request line, as UTF-8 (or UnusableUrl), and nothing else."""
    try:
        return _NEEDS_QUOTING.sub(lambda found: quote(found[0], safe=""), text)
    except UnicodeEncodeError:
        raise UnusableUrl(detail="half a surrogate pair") from None


def encode_host(text: str) -> str:
    """Return a host name in lower-case ASCII: by IDNA 2008, or else (emoji) by IDNA 2003."""
    host = unquote(text) if "%" in text else text  # of no UTF-8: U+FFFD, which is refused below
    if len(host) > MAX_HOST_CHARACTERS:
        raise UnusableUrl(detail="the host name is too long")
    if not host.isascii():
        host = _encode_idna(host)
    host = host.lower()
    if not _HOST_NAME.fullmatch(host) or not host.strip("."):
        raise UnusableUrl(detail="the host name is malformed")
    return host


def _split_authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise UnusableUrl(detail="holds a user name")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise UnusableUrl(detail="the host or port is malformed")
    port = int(parts[2] or default_port)
    if port > 65535 or (port < FIRST_UNPRIVILEGED_PORT and port not in DEFAULT_PORTS.values()):
        limit = f"of those below {FIRST_UNPRIVILEGED_PORT} only 80 and 443 are allowed"
        raise UnusableUrl(detail=f"port {port}: {limit}")
    is_address = parts[1].startswith("[")
    return (_parse_ipv6(parts[1][1:-1]) if is_address else encode_host(parts[1])), port


def _parse_ipv6(text: str) -> str:
    """Return an IPv6 address in its short form; zones, an interface of ours, are refused."""
    try:
        if "%" in text:
            raise ValueError
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise UnusableUrl(detail="no IPv6 address") from None


def _encode_idna(host: str) -> str:
    with suppress(UnicodeError, IndexError):
        return idna.encode(host, uts46=True).decode()
    with suppress(UnicodeError, IndexError):
        return host.encode("idna").decode()
    raise UnusableUrl(detail="the host name is malformed")


def is_forbidden(address: Address, allowed: Iterable[Network] = ()) -> bool:
    """Return whether `address`, or one embedded in it, is refused; those in `allowed` are not."""
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if any(address in network for network in allowed if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _FORBIDDEN_V4) or is_own(address)
    if address not in _PUBLIC_V6 and address not in _NAT64:
        return True
    if any(address in network for network in _FORBIDDEN_V6) or is_own(address):
        return True
    return any(is_forbidden(inner) for inner in embedded_addresses(address))


def embedded_addresses(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that a router or tunnel may extract from an IPv6 address.

    Mapped and compatible (RFC 4291), 6to4 (3056), NAT64 (6052, 8215), Teredo (4380), ISATAP (5214).
    """
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if int(address) >> 32 == 0 or address in _NAT64 or address in _NAT64_LOCAL:
        inner.append(low)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP_MARKS:
        inner.append(low)
    return [each for each in inner if each is not None]


def is_own(address: Address) -> bool:
    """Return whether `address` is this host's: a datagram socket to it has it as its source."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False
