"""Decide which addresses an `image_url` may lead to, those embedded in others included.

Python's `is_global` alone lets through NAT64, 6to4, IPv4-compatible, ISATAP, multicast and
site-local addresses, so the table is written out (IANA special-purpose registries, RFC 6890).
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

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
