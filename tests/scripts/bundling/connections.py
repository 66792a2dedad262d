"""Read from strace's output whom the traced processes tried to reach."""

import re
from pathlib import Path

TRACER = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg")
"""Follows every process. Append `-o FILE`, then the command."""

_ADDRESS = re.compile(
    r"sa_family=(?P<family>AF_\w+)"
    r"(?:[^}]*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<address>[^\"]+)\")?"
)
_THIS_MACHINE = re.compile(r"AF_UNIX|AF_LOCAL|AF_NETLINK|127\.\d+\.\d+\.\d+|::1|::ffff:127\..*")


def reached(trace: Path) -> set[str]:
    """List every address that something was sent to or a connection was opened to.

    IP addresses, and the names of families that have none, like `AF_UNIX`.
    """
    found = _ADDRESS.finditer(trace.read_text(errors="replace"))
    return {match["address"] or match["family"] for match in found}


def outside(addresses: set[str]) -> set[str]:
    """Keep the addresses that are not this machine's own."""
    return {address for address in addresses if not _THIS_MACHINE.fullmatch(address)}
