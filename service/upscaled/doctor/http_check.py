"""Probe an HTTP server: whether it is this service, and whether it is ready."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Final

TIMEOUT_S: Final = 3.0
_MOST_BYTES: Final = 4096
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to `GET /healthz` and `GET /readyz`; `is_ours`: the former was this service's."""

    is_ours: bool
    is_ready: bool


class NoHttpAnswer(Exception):
    """Nothing answered as HTTP does; the text says what happened instead."""


def probe(host: str, port: int, *, prefix: str = "", tls: ssl.SSLContext | None = None) -> Answer:
    """Probe a server, `TIMEOUT_S` for each request, with no redirect and no proxy.

    Args:
        prefix: a path before `/healthz`.

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
        raise NoHttpAnswer(f"what answers speaks no HTTP ({type(error).__name__})") from None
    finally:
        connection.close()


def _parse(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def read_days_left(host: str, port: int, tls: ssl.SSLContext, now_s: float) -> float:
    """Return the days from `now_s` (since 1970) to the end of a server's certificate.

    Args:
        tls: a context that verifies; others do not return the certificate.

    Raises:
        OSError: it cannot be had; also ssl.SSLError.
    """
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        tls.wrap_socket(plain, server_hostname=host) as connection,
    ):
        certificate = connection.getpeercert() or {}
    ends_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    return (ends_s - now_s) / _DAY_S
