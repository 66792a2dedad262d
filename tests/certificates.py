"""Certificates made for a test, each its own authority."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(
    folder: Path, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 90
) -> Certificate:
    """A certificate for `names`, as of subjectAltName; with -1 it has ended. Skips without
    openssl.
    """
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    asked, extensions = folder / "request.pem", folder / "extensions"
    extensions.write_text(f"subjectAltName={names}")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    _openssl(
        "req", "-new", "-nodes", *curve, "-keyout", made.key, "-out", asked, "-subj", "/CN=test"
    )
    _openssl("x509", "-req", "-in", asked, "-signkey", made.key, "-days", str(days),
             "-extfile", extensions, "-out", made.certificate)  # fmt: skip
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
