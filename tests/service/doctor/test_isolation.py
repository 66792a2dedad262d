"""Each claim in a process of its own: a namespace and an audit hook are for a process's life."""

import json
import subprocess
import sys

import pytest

from upscaled.doctor.isolation import count_unroutable

PROGRAM = """
import json, socket, subprocess, sys
from upscaled.doctor.isolation import ConnectionRecorder
recorder = ConnectionRecorder()
{attempt}
print(json.dumps([recorder.is_isolated, recorder.targets, recorder.count_lost_packets()]))
"""
CONNECT = """
with socket.socket() as plain:
    plain.settimeout(1)
    try:
        plain.connect(("192.0.2.1", 80))
    except OSError:
        pass
"""
LOOK_UP = """
try:
    socket.getaddrinfo("upscale.example.com", 443)
except OSError:
    pass
"""
# Not Python: bash connects by itself.
IN_A_CHILD = "subprocess.run(['bash', '-c', '</dev/tcp/192.0.2.1/80'], stderr=-3)"
AT_HOME = """
with socket.socketpair()[0], socket.create_server(("", 0)):
    socket.getaddrinfo("localhost", 80)
"""


def watched(attempt: str) -> tuple[bool, list[str], int]:
    """Skips where no namespace is allowed: what is tried would then be sent."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(attempt=f"if recorder.is_isolated:\n{_indent(attempt)}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    is_isolated, targets, lost = json.loads(done.stdout)
    if not is_isolated:
        pytest.skip("network namespaces are not allowed here")
    return is_isolated, targets, lost


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())


@pytest.mark.parametrize(
    ("attempt", "target"),
    [(CONNECT, ["192.0.2.1:80"]), (LOOK_UP, ["upscale.example.com:443"])],
    ids=["an address", "a name"],
)
def test_a_connection_from_python_is_named(attempt: str, target: list[str]) -> None:
    _, targets, _ = watched(attempt)
    assert targets == target


def test_connections_from_outside_python_are_counted_by_the_kernel() -> None:
    _, targets, lost = watched(IN_A_CHILD)
    assert targets == []
    assert lost >= 1


def test_sockets_of_this_machine_are_no_attempt() -> None:
    _, targets, lost = watched(AT_HOME)
    assert (targets, lost) == ([], 0)


def test_counters_of_both_protocols_are_read() -> None:
    assert count_unroutable("Ip: InReceives OutNoRoutes\nIp: 7 3\nTcp: A\nTcp: 1\n") == 3
    assert count_unroutable("Ip6InReceives  7\nIp6OutNoRoutes  \t4\n") == 4
    assert count_unroutable("") == 0
