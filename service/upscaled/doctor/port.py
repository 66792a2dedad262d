"""Check the port: the service answers there, or could be started there."""

import os
import socket
from typing import Final

from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.doctor.http_check import NoHttpAnswer, probe

CHECK: Final = "port"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared only)


def check_port(host: str, port: int, *, is_expected: bool) -> list[Finding]:
    """Probe the server that listens on the address; where none does, try to listen.

    Args:
        host: as for `upscaled serve --host`.
        is_expected: whether the service should be running: a closed port is then a failure.
    """
    address = f"{host} port {port}"
    try:
        answer = probe(_WILDCARDS.get(host, host), port)
    except ConnectionRefusedError:
        return [_describe_closed(host, port, is_expected=is_expected)]
    except NoHttpAnswer as error:
        reason = _why_not_free(host, port)
        return [
            failure(
                CHECK,
                f"{address}: {reason or error}",
                "name the address that `upscaled serve` listens on by --host and --port",
            )
        ]
    if not answer.is_ours:
        return [
            failure(
                CHECK,
                f"{address}: another program answers there",
                f"see which: `ss -ltnp 'sport = :{port}'`; stop it, or serve on another --port",
            )
        ]
    if not answer.is_ready:
        return [
            failure(
                CHECK,
                f"{address}: the service answers, but is not ready",
                "wait for its models to load; else the other lines here and its log say why",
            )
        ]
    return [ok(CHECK, f"{address}: the service answers and is ready")]


def _describe_closed(host: str, port: int, *, is_expected: bool) -> Finding:
    reason = _why_not_free(host, port)
    found = f"{host} port {port}: closed, nothing answers"
    start = f"start it: `upscaled serve --host {host} --port {port}`"
    if reason:
        advice = "serve on another --port, or an address of this machine by --host"
        return failure(CHECK, f"{found}, and the service could not: {reason}", advice)
    if is_expected:
        return failure(CHECK, found, f"{start}, and see its log if it ends")
    return warning(CHECK, f"{found}; free to serve on", f"if the service should run, {start}")


def _why_not_free(host: str, port: int) -> str:
    """Return why a server could not listen there; empty if it could."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except socket.gaierror:
        return "the host name is unknown"
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""
