import ipaddress
import socket

import psutil
import pytest

from upscaled.fetch.url import embedded_addresses, is_forbidden, is_own

FORBIDDEN = [
    # IPv4: this network, private, carrier-grade NAT, loopback, link-local, metadata
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.170.2", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.192", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
    *("168.63.129.16", "100.100.100.200"),
    # documentation, relays, multicast, reserved, broadcast
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "192.31.196.1", "192.52.193.1"),
    *("192.175.48.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    # IPv6: unspecified, loopback, unique local, link-local, site-local, multicast, documentation
    *("::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "ff02::1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "2620:4f:8000::1"),
    # IPv4 inside IPv6: mapped, compatible, 6to4, NAT64 twice, Teredo, ISATAP
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::808:808"),
    *("2001:0:53aa:64c:0:0:80ff:fffe", "2001::1", "2a00:1450::5efe:a00:1"),
    *("2a00:1450::200:5efe:7f00:1", "fe80::5efe:7f00:1", "::ffff:0:127.0.0.1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1"),
    *("126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.1", "172.15.255.255"),
    *("172.32.0.1", "192.0.1.1", "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1"),
    *("168.63.129.15", "168.63.129.17", "223.255.255.255", "2a00:1450:4001::200e"),
    *("2606:4700::1111", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    "2a00:1450::5efe:808:808",
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_private_addresses_are_forbidden(text: str) -> None:
    assert is_forbidden(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert not is_forbidden(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("::ffff:192.0.2.33", ["192.0.2.33"]),
        ("::192.0.2.33", ["192.0.2.33"]),
        ("2002:c000:221::", ["192.0.2.33"]),
        ("64:ff9b::192.0.2.33", ["192.0.2.33"]),
        ("64:ff9b:1::192.0.2.33", ["192.0.2.33"]),
        # the example of RFC 4380: server 65.54.227.120, client 192.0.2.45
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", ["65.54.227.120", "192.0.2.45"]),
        ("2a00::5efe:192.0.2.33", ["192.0.2.33"]),
        ("2a00::200:5efe:192.0.2.33", ["192.0.2.33"]),
        ("2a00:1450:4001::200e", []),
    ],
)
def test_embedded_addresses_are_found(text: str, inside: list[str]) -> None:
    found = embedded_addresses(ipaddress.IPv6Address(text))
    assert [str(each) for each in found] == inside


def test_allowed_networks_open_nothing_else() -> None:
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")]
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "fd00:1::5", "8.8.8.8"):
        assert not is_forbidden(ipaddress.ip_address(text), allowed), text
    for text in ("10.2.2.3", "127.0.0.1", "fd00:2::5", "::10.1.2.3", "2002:a01:203::1"):
        assert is_forbidden(ipaddress.ip_address(text), allowed), text


def test_every_address_of_this_host_is_own() -> None:
    own = [
        ipaddress.ip_address(each.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family in (socket.AF_INET, socket.AF_INET6)
    ]
    assert own
    linked = [each for each in own if not each.is_link_local]  # those are forbidden anyway
    assert all(is_own(each) for each in linked)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "255.255.255.255", "10.99.98.97"])
def test_addresses_of_others_are_not_our_own(text: str) -> None:
    assert not is_own(ipaddress.ip_address(text))
