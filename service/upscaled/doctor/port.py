"""Probe the service over HTTP, and check its port: it answers there, or could be started there."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.process.listener import CannotListen, callable_host, open_listener
from upscaled.state.usage_days import DAY_S

CHECK: Final = "port"
TIMEOUT_S: Final = 3.0
_MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to `GET /healthz` and `GET /readyz`; `is_ours`: the former was this service's."""

    is_ours: bool
    is_ready: bool


class NoHttpAnswer(Exception):
    """Nothing answered as HTTP does; the text says what happened instead."""


def check_port(host: str, port: int, *, is_expected: bool, is_tls: bool = False) -> list[Finding]:
    """Probe the server that listens on the address; where none does, try to listen.

    is_expected: a closed port is a failure. is_tls: it serves https; its certificate is checked
    elsewhere.
    """
    address = f"{host} port {port}"
    try:
        answer = probe(callable_host(host), port, tls=_trust_all() if is_tls else None)
    except ssl.SSLError as error:
        advice = "another program listens there, or the service without UPSCALED_TLS_CERT"
        return [failure(CHECK, f"{address}: no https ({error.reason})", advice)]
    except ConnectionRefusedError:
        return [_describe_closed(host, port, is_expected=is_expected)]
    except NoHttpAnswer as error:
        reason = _why_not_free(host, port)
        advice = "name the address that `upscaled serve` listens on by --host and --port"
        return [failure(CHECK, f"{address}: {reason or error}", advice)]
    if not answer.is_ours:
        advice = f"see which: `ss -ltnp 'sport = :{port}'`; stop it, or serve on another --port"
        return [failure(CHECK, f"{address}: another program answers there", advice)]
    if not answer.is_ready:
        advice = "wait for its models to load; else the other lines here and its log say why"
        return [failure(CHECK, f"{address}: the service answers, but is not ready", advice)]
    return [ok(CHECK, f"{address}: the service answers and is ready")]


def _trust_all() -> ssl.SSLContext:
    """Return a context for any certificate: the address is seldom the name that it is for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


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
    try:
        open_listener(host, port).close()
    except CannotListen as error:
        return str(error)
    return ""


def probe(host: str, port: int, *, prefix: str = "", tls: ssl.SSLContext | None = None) -> Answer:
    """Probe a server's `prefix`/healthz, `TIMEOUT_S` a request, with no redirect and no proxy.

    Raises:
        ConnectionRefusedError: nothing listens there.
        ssl.SSLError: the server's certificate is not to be trusted.
        NoHttpAnswer: whatever else kept an answer from coming.
    """
    health = _get(host, port, f"{prefix}/healthz", tls)
    is_ours = health == (200, {"status": "ok"})
    return Answer(is_ours, is_ours and _get(host, port, f"{prefix}/readyz", tls)[0] == 200)


def _get(host: str, port: int, path: str, tls: ssl.SSLContext | None) -> tuple[int, object]:
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=tls)
        if tls
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    )
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, _parse(answer.read(_MOST_BYTES))
    except (ConnectionRefusedError, ssl.SSLError):
        raise
    except TimeoutError:
        raise NoHttpAnswer(f"no answer within {TIMEOUT_S:.0f} s") from None
    except socket.gaierror:
        raise NoHttpAnswer("the host name is unknown here") from None
    except OSError as error:
        raise NoHttpAnswer(error.strerror or str(error)) from None
    except http.client.HTTPException as error:
        raise NoHttpAnswer(f"the answer is no HTTP ({type(error).__name__})") from None
    finally:
        connection.close()


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def read_days_left(host: str, port: int, tls: ssl.SSLContext, now_s: float) -> float:
    """Return the days from `now_s` to the end of a server's certificate, or raise OSError.

    A `tls` that does not verify returns none.
    """
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        tls.wrap_socket(plain, server_hostname=host) as connection,
    ):
        certificate = connection.getpeercert() or {}
    ends_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return (ends_s - now_s) / DAY_S
