"""Run this process without a network, and record whether anything in it tried to connect.

In a network namespace of its own the kernel counts every packet that finds no way out, of C and of
children too. Where none is allowed, only what Python itself connects to is seen.
"""

import ctypes
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from upscaled.process.listener import is_loopback

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_EVENTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKUPS: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})
_SNMP: Final = ("/proc/self/net/snmp", "/proc/self/net/snmp6")


class ConnectionRecorder:
    """Recorder of what this process and its children tried to reach since it was made.

    To be made first of all, by a process of one thread. is_isolated: in a namespace of its own.
    targets: addresses and names outside this machine that Python was asked for.
    """

    def __init__(self) -> None:
        self.is_isolated = _leave_network()
        self.targets: list[str] = []
        sys.addaudithook(self._audit)

    def count_lost_packets(self) -> int:
        """Count packets that found no way out of the namespace; 0 where there is none."""
        if not self.is_isolated:
            return 0
        return sum(
            count_unroutable(Path(name).read_text()) for name in _SNMP if os.path.exists(name)
        )

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        target: object = None
        if event in _EVENTS:
            target = arguments[1] if len(arguments) > 1 else None
        elif event in _LOOKUPS:
            target = arguments[:2]
        if isinstance(target, Sequence) and not isinstance(target, (str, bytes)):
            host = str(target[0]) if target else ""
            if host and not is_loopback(host):
                self.targets.append(":".join(str(part) for part in target[:2] if part is not None))


def count_unroutable(snmp: str) -> int:
    """Count the packets without a way out, from the text of /proc/net/snmp or snmp6."""
    if match := re.search(r"^Ip6OutNoRoutes\s+(\d+)", snmp, re.MULTILINE):
        return int(match[1])
    rows = [line.split() for line in snmp.splitlines() if line.startswith("Ip:")]
    if len(rows) != 2:
        return 0
    return int(dict(zip(*rows, strict=True)).get("OutNoRoutes", 0))


def _leave_network() -> bool:
    """Leave the network: as root directly, else by a user namespace with the same user."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with suppress(OSError):  # files are theirs even where the process has no user name
            Path("/proc/self", name).write_text(text)
    return True
