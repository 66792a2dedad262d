"""Open the socket that a server listens on, or raise an error with the reason in words."""

import ipaddress
import os
import socket
from typing import Final

_UNKNOWN_NAME: Final = "the host name is unknown"


class CannotListen(Exception):
    """A server cannot listen on an address; the text says why, without the address."""


def open_listener(host: str, port: int) -> socket.socket:
    """Open a listening socket; `host` may be a name, or empty for all addresses of IPv4.

    Raises:
        CannotListen: an unknown name, another's port, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host or None, port, family=family, type=socket.SOCK_STREAM)
        return socket.create_server((host, port), family=family)
    except (socket.gaierror, UnicodeError):
        raise CannotListen(_UNKNOWN_NAME) from None
    except OSError as error:
        # `create_server` passes the number of a resolver's error on, which is below 0.
        is_resolvers = (error.errno or 0) < 0
        reason = _UNKNOWN_NAME if is_resolvers else os.strerror(error.errno or 0)
        raise CannotListen(reason) from None


def callable_host(host: str) -> str:
    """Return an address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared only)


def describe_url(listener: socket.socket, *, is_tls: bool = False) -> str:
    """Return the URL at which this machine reaches the socket."""
    scheme = "https" if is_tls else "http"
    host, port = listener.getsockname()[:2]
    host = callable_host(host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether an address or a name can only be this machine's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
