"""Ports for servers of other programs, and waiting until they listen there."""

import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_listening(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a program listens on a port of loopback; fail with its log if it does not."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}:\n{log.read_text()}")
