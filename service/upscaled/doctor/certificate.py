"""Check the certificate with which the service itself serves https."""

import ssl
import time
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.process.certificate import CertificateUnusable, find_files, read_end_s

CHECK: Final = "certificate"
WARN_DAYS: Final = 14
_DAY_S: Final = 86_400.0


def check_certificate(settings: Settings) -> list[Finding]:
    """Load the files of `UPSCALED_TLS_CERT` and `UPSCALED_TLS_KEY`, where these are set."""
    try:
        files = find_files(settings.tls_cert, settings.tls_key)
        if files is None:
            return []
        days = (read_end_s(files) - time.time()) / _DAY_S
    except CertificateUnusable as error:
        return [failure(CHECK, str(error), "correct the setting, or the file that it names")]
    except ssl.SSLCertVerificationError as error:
        found = f"{settings.tls_cert}: {error.verify_message}"
        return [failure(CHECK, found, "renew it: clients refuse the service")]
    return [describe_days(days, settings.tls_cert)]


def describe_days(days: float, where: str) -> Finding:
    """Return the finding for a certificate that holds for so many days more."""
    if days < WARN_DAYS:
        return warning(CHECK, f"{where} ends in {days:.0f} days", "renew it")
    return ok(CHECK, f"{where} ends in {days:.0f} days")
