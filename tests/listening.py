"""Ports for servers of other programs, and waiting until they listen there."""

import secrets
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

CHOSEN_FROM = 10_000
FIRST_UNPRIVILEGED = 1024


def free_port() -> int:
    """Return a port of loopback that nothing listens on, below those of outgoing connections.

    Of the latter the system may give any program the same one before a test's server listens there.
    """
    ports = range(_first_outgoing_port() - CHOSEN_FROM, _first_outgoing_port())
    while ports.start >= FIRST_UNPRIVILEGED:
        port = secrets.choice(ports)  # which no test seeds, unlike `random`
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _first_outgoing_port() -> int:
    """Return the lowest port of outgoing connections; RFC 6335's where the system names none."""
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(limits.read_text().split()[0]) if limits.exists() else 49152


def wait_listening(port: int, process: "subprocess.Popen[bytes] | None", log: Path) -> None:
    """Wait until a program listens on a port of loopback; fail with its log if it does not.

    process: None where another process has started the program.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}:\n{log.read_text()}")
