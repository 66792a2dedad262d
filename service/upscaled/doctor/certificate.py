"""How long a server's certificate still holds."""

import socket
import ssl
from typing import Final

TIMEOUT_S: Final = 3.0
_DAY_S: Final = 86_400.0


def days_left(host: str, port: int, tls: ssl.SSLContext, now_s: float) -> float:
    """Days from `now_s` (since 1970) to its end.

    tls: a context that verifies; others are told nothing of the certificate.

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
