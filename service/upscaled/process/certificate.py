"""Load the TLS certificate of a listening socket, and load it again once its files have changed."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled.logs import event
from upscaled.process.named_file import NamedFileUnusable, read_named_file

LEAST_VERSION: Final = ssl.TLSVersion.TLSv1_2
_CERTIFICATE: Final = "UPSCALED_TLS_CERT"
_KEY: Final = "UPSCALED_TLS_KEY"

_log: Final = logging.getLogger(__name__)


class CertificateUnusable(Exception):
    """No TLS server can use these files; the text names the setting, its value and why."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The two files in PEM: the certificate, with those up to its authority, and its key."""

    certificate: Path
    key: Path

    def load(self) -> ssl.SSLContext:
        """Return a server's context for HTTP/1.1 over TLS 1.2 or 1.3.

        Raises:
            CertificateUnusable: a file cannot be read, holds no such thing, or the two are no pair.
        """
        self._check(_CERTIFICATE, self.certificate, b"-----BEGIN CERTIFICATE-----", "certificate")
        self._check(_KEY, self.key, b"PRIVATE KEY-----", "private key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = LEAST_VERSION
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key, password="")  # never asks for one
        except ssl.SSLError as error:
            raise CertificateUnusable(
                f"{_CERTIFICATE}={self.certificate} and {_KEY}={self.key}: "
                + _describe(error.reason)
            ) from None
        except OSError as error:  # deleted since it was checked, as during a renewal
            raise CertificateUnusable(
                f"{_CERTIFICATE}={self.certificate} and {_KEY}={self.key}: {error.strerror}"
            ) from None
        return context

    def stamp(self) -> tuple[object, ...]:
        """Return a value that changes when either file is changed, deleted or created."""
        return (_stamp(self.certificate), _stamp(self.key))

    def _check(self, setting: str, file: Path, mark: bytes, what: str) -> None:
        try:
            content = read_named_file(file, takes_pipe=False)  # OpenSSL reads it once more
        except NamedFileUnusable as error:
            raise CertificateUnusable(f"{setting}={file}: {error}") from None
        if mark not in content:
            raise CertificateUnusable(f"{setting}={file}: holds no {what} in PEM")
        if b"ENCRYPTED" in content:
            raise CertificateUnusable(f"{setting}={file}: is encrypted; a key without is needed")


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()  # of what a link leads to: renewals replace links
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _describe(reason: str | None) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    return f"cannot be used ({reason or 'broken PEM'})"


def find_files(certificate: str, key: str) -> CertificateFiles | None:
    """Return the files of the two settings, None where both are empty.

    One without the other is CertificateUnusable.
    """
    if not certificate and not key:
        return None
    if not certificate or not key:
        given, missing = (_CERTIFICATE, _KEY) if certificate else (_KEY, _CERTIFICATE)
        raise CertificateUnusable(f"{given} is set without {missing}: https needs both")
    return CertificateFiles(Path(certificate).expanduser(), Path(key).expanduser())


class ServerCertificate:
    """TLS certificate of a server; `context` is for the next connection."""

    def __init__(self, files: CertificateFiles) -> None:
        """Load the certificate.

        Raises:
            CertificateUnusable: see `CertificateFiles.load`.
        """
        self._files = files
        self._stamp = files.stamp()
        self.context = files.load()

    def reload_if_changed(self) -> None:
        """Load the files where they have changed; a pair that cannot be used leaves the last one.

        A new certificate is there a moment before its key: that pair is logged, and the next call
        finds the key changed.
        """
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.context = self._files.load()
        except CertificateUnusable as error:
            fields = event("tls_unusable")
            _log.error("the last certificate stays in use: %s", error, extra=fields)
        else:
            _log.info("new connections get the renewed certificate", extra=event("tls_renewed"))


def read_end_s(files: CertificateFiles) -> float:
    """Return when the certificate ends, in seconds since 1970, out of a handshake with itself.

    Raises:
        CertificateUnusable: see `CertificateFiles.load`.
        ssl.SSLCertVerificationError: it has ended, has not begun, or is none of a server.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is its own authority here
    server_context = files.load()
    client_context.load_verify_locations(cafile=files.certificate)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    while not _has_shaken_hands(client):
        _has_shaken_hands(server)
    ends = (client.getpeercert() or {})["notAfter"]
    return ssl.cert_time_to_seconds(str(ends))


def _has_shaken_hands(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
