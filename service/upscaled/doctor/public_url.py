"""Check the certificate of the service, and its public base URL: clients accept it and reach us."""

import ssl
import time
from typing import Final
from urllib.parse import SplitResult, urlsplit

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.doctor.port import NoHttpAnswer, probe, read_days_left
from upscaled.fetch.url import DEFAULT_PORTS
from upscaled.process.certificate import CertificateUnusable, find_files, read_end_s
from upscaled.process.listener import is_loopback
from upscaled.state.usage_days import DAY_S

CHECK: Final = "public URL"
_PROXY_ADVICE: Final = (
    "correct UPSCALED_PUBLIC_BASE_URL, or the proxy, name or firewall before the service"
)
CERTIFICATE: Final = "certificate"
WARN_DAYS: Final = 14


def check_public_url(settings: Settings, *, may_connect: bool) -> list[Finding]:
    """Check the setting, and call it where it leads to this machine, or `may_connect`."""
    if not settings.public_base_url:
        return [ok(CHECK, "not set: result URLs begin with the address that the client called")]
    url = urlsplit(settings.public_base_url)
    findings = _check_text(url)
    if may_connect or is_loopback(url.hostname or ""):
        return [*findings, *_follow(url)]
    if not findings:
        findings = [ok(CHECK, f"{url.geturl()} (not called: --connect does)")]
    return findings


def _check_text(url: SplitResult) -> list[Finding]:
    if is_loopback(url.hostname or ""):
        found = "leads every other computer to itself"
        advice = "set UPSCALED_PUBLIC_BASE_URL to the name that clients know this server by"
    elif url.scheme != "https":
        found = "is not https, and some clients refuse such result URLs"
        advice = (
            "put TLS in front (service/upscaled/docs/proxy.md) and set "
            f"UPSCALED_PUBLIC_BASE_URL=https://{url.netloc}"
        )
    else:
        return []
    return [warning(CHECK, f"{url.geturl()} {found}", advice)]


def _follow(url: SplitResult) -> list[Finding]:
    host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
    shown = url.geturl()
    tls = ssl.create_default_context() if url.scheme == "https" else None
    try:
        answer = probe(host, port, prefix=url.path, tls=tls)
    except ConnectionRefusedError:
        return [failure(CHECK, f"{shown}: nothing listens there", _PROXY_ADVICE)]
    except ssl.SSLError as error:
        return [_describe_certificate(shown, error)]
    except NoHttpAnswer as error:
        return [failure(CHECK, f"{shown}: {error}", _PROXY_ADVICE)]
    if not answer.is_ours:
        return [failure(CHECK, f"{shown}: does not lead to this service", _PROXY_ADVICE)]
    if not answer.is_ready:
        return [failure(CHECK, f"{shown}: leads here, but the service is not ready", "see `port`")]
    return [
        ok(CHECK, f"{shown} leads to the service, which is ready"),
        *_check_age(host, port, tls),
    ]


def _describe_certificate(shown: str, error: ssl.SSLError) -> Finding:
    reason = getattr(error, "verify_message", "") or error.reason or str(error)
    return failure(
        CERTIFICATE,
        f"{shown}: {reason}",
        "renew it, send the whole chain, and name the host in it; an authority of your own must "
        "be trusted by every client, and here by SSL_CERT_FILE",
    )


def _check_age(host: str, port: int, tls: ssl.SSLContext | None) -> list[Finding]:
    if tls is None:
        return []
    try:
        days = read_days_left(host, port, tls, time.time())
    except OSError as error:
        return [warning(CERTIFICATE, f"cannot be read: {error}", _PROXY_ADVICE)]
    return [describe_days(days, "trusted here,")]


def check_certificate(settings: Settings) -> list[Finding]:
    """Load the files of `UPSCALED_TLS_CERT` and `UPSCALED_TLS_KEY`, where these are set."""
    try:
        files = find_files(settings.tls_cert, settings.tls_key)
        if files is None:
            return []
        days = (read_end_s(files) - time.time()) / DAY_S
    except CertificateUnusable as error:
        return [failure(CERTIFICATE, str(error), "correct the setting, or the file that it names")]
    except ssl.SSLCertVerificationError as error:
        found = f"{settings.tls_cert}: {error.verify_message}"
        return [failure(CERTIFICATE, found, "renew it: clients refuse the service")]
    return [describe_days(days, settings.tls_cert)]


def describe_days(days: float, where: str) -> Finding:
    """Return the finding for a certificate that holds for so many days more."""
    if days < WARN_DAYS:
        return warning(CERTIFICATE, f"{where} ends in {days:.0f} days", "renew it")
    return ok(CERTIFICATE, f"{where} ends in {days:.0f} days")
