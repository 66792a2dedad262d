"""Limit the connections of the server, in all and from one address, and check their deadlines.

Where there are too many, the one that has been idle longest is evicted; only where none is idle the
new one is refused. So silent connections cannot lock other clients out. A connection on which the
client still reads a response is not idle, and is never cut off for a new one.
"""

import asyncio
import logging
import resource
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Protocol

from upscaled.config import Network, Settings
from upscaled.logs import event

CHECK_EVERY_S: Final = 0.25
# Descriptors of the process that are not for clients: workers, database, results, sources.
RESERVED_DESCRIPTORS: Final = 128
LEAST_CONNECTIONS: Final = 16
ADMIN_CONNECTIONS: Final = 32
"""Connections of the administration listener, which few administrators use at once."""
_LOG_EVERY_S: Final = 10.0
_IPV6_PREFIX: Final = 64
"""One customer of an access provider has at least such a network (RFC 6177)."""

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        trusted: addresses of proxies, whose clients are many: not counted by address.
        write_timeout_s: the longest that a client may receive nothing of a response.
    """

    total: int = 1000
    per_address: int = 100
    trusted: tuple[Network, ...] = ()
    write_timeout_s: float = 30.0


class RegisteredConnection(Protocol):
    """Connection of a client, with the interface that the registry needs."""

    def check(self, now_s: float) -> None:
        """Close the connection if a deadline has passed; `now_s` is of `time.monotonic`."""

    def evict(self) -> bool:
        """Close the connection for another one; False where its client still reads."""


class Connections:
    """Registry of open connections on the event loop, which checks their deadlines."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: dict[RegisteredConnection, str] = {}
        self._of_address: dict[str, dict[RegisteredConnection, None]] = {}
        self._idle: dict[RegisteredConnection, None] = {}  # longest idle first
        self._timer: asyncio.TimerHandle | None = None
        self._refused = 0
        self._logged_at_s = -_LOG_EVERY_S

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: RegisteredConnection, address: str) -> bool:
        """Add a new, idle connection from an IP address, or ""; False if there are too many."""
        source = self._source_of(address)
        same = self._of_address.get(source, {})
        if source and len(same) >= self.limits.per_address and not self._evict(same):
            return self._refuse("UPSCALED_MAX_CONNECTIONS_PER_ADDRESS", source)
        if len(self._open) >= self.limits.total and not self._evict(self._idle):
            return self._refuse("UPSCALED_MAX_CONNECTIONS", source)
        self._open[connection] = source
        self._of_address.setdefault(source, {})[connection] = None
        self._idle[connection] = None
        if self._timer is None:
            self._check_later()
        return True

    def remove(self, connection: RegisteredConnection) -> None:
        """Remove a connection; one that was never admitted is ignored."""
        source = self._open.pop(connection, None)
        if source is None:
            return
        self._idle.pop(connection, None)
        same = self._of_address[source]
        del same[connection]
        if not same:
            del self._of_address[source]

    def note_busy(self, connection: RegisteredConnection) -> None:
        """Note that a request has arrived, so the connection is not evicted for others."""
        self._idle.pop(connection, None)

    def note_idle(self, connection: RegisteredConnection) -> None:
        if connection in self._open:
            self._idle[connection] = None

    def _source_of(self, address: str) -> str:
        """Return whom the limit per address counts this one to; "" where it does not apply."""
        ip = parse_address(address)
        if ip is None or any(ip in network for network in self.limits.trusted):
            return ""
        return subscriber_of(ip)

    def _evict(self, among: dict[RegisteredConnection, None]) -> bool:
        """Close the connection of `among` that has been idle longest; False where none is idle."""
        for oldest in self._idle:
            if oldest in among and oldest.evict():
                self.remove(oldest)
                return True
        return False

    def _refuse(self, setting: str, source: str) -> bool:
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= _LOG_EVERY_S:
            count = {"refused": self._refused, "open": len(self._open)}
            fields = event("connections_refused", address=source, **count)
            _logger.warning("too many connections, see %s", setting, extra=fields)
            self._refused, self._logged_at_s = 0, now_s
        return False

    def _check_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        now_s = time.monotonic()
        for connection in tuple(self._open):
            try:
                connection.check(now_s)
            except Exception:  # a bug; the deadlines of all other connections go on
                _logger.exception("a connection could not be checked", extra=event("crash"))
                self.remove(connection)
        self._timer = None
        if self._open:
            self._check_later()


def parse_address(address: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address without its zone, an IPv4 one that was written as IPv6 as itself."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return ip if isinstance(ip, IPv4Address) else ip.ipv4_mapped or ip


def subscriber_of(ip: IPv4Address | IPv6Address) -> str:
    """Return the IPv4 address, or the IPv6 network, that one customer of a provider has."""
    return str(ip if isinstance(ip, IPv4Address) else ip_network((ip, _IPV6_PREFIX), strict=False))


def build_connections(settings: Settings) -> Connections:
    """Return the registry for these settings, within the process's limit on descriptors.

    The connections of an administration listener are left out of it.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    total = settings.max_connections
    if descriptors != resource.RLIM_INFINITY:
        reserved = RESERVED_DESCRIPTORS
        if settings.has_admin_listener:
            reserved += ADMIN_CONNECTIONS
        total = min(total, max(LEAST_CONNECTIONS, descriptors - reserved))
    if total < settings.max_connections:
        fields = event("few_descriptors", descriptors=descriptors, connections=total)
        _logger.warning("fewer connections than set: too few descriptors", extra=fields)
    return _build(settings, total)


def build_admin_connections(settings: Settings) -> Connections:
    return _build(settings, min(settings.max_connections, ADMIN_CONNECTIONS))


def _build(settings: Settings, total: int) -> Connections:
    return Connections(
        ConnectionLimits(
            total=total,
            per_address=settings.max_connections_per_address,
            trusted=settings.trusted_proxies,
            write_timeout_s=settings.write_timeout_s,
        )
    )
