from pathlib import Path

from tests.scripts.bundling.connections import outside, reached

TRACE = """\
12 connect(5, {sa_family=AF_UNIX, sun_path="/run/nscd/socket"}, 110) = -1 ENOENT
12 connect(5, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("192.0.2.1")}, 16) = -1
13 connect(6, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), \
inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = -1 ENETUNREACH
13 connect(7, {sa_family=AF_INET, sin_port=htons(5432), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
13 sendto(7, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1
13 sendto(8, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 20
"""


def test_addresses_are_distinguished_from_this_machine_s_own(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(TRACE)
    found = reached(trace)
    assert found == {"AF_UNIX", "192.0.2.1", "2001:db8::1", "127.0.0.1", "AF_NETLINK"}
    assert outside(found) == {"192.0.2.1", "2001:db8::1"}


def test_an_unknown_address_family_counts_as_outside() -> None:
    assert outside({"AF_VSOCK", "::1", "127.0.0.53", "127.0.0.1.example"}) == {
        "AF_VSOCK",
        "127.0.0.1.example",
    }
