"""Check who may send requests: the holders of an API key, or all computers that reach it."""

from typing import Final
from urllib.parse import urlsplit

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, ok, warning
from upscaled.process.listener import is_loopback

CHECK: Final = "access"


def check_access(settings: Settings, host: str) -> list[Finding]:
    """Report `UPSCALED_AUTH=none`: a warning where `host` is not for this computer alone."""
    if settings.auth != "none":
        return []
    open_to = find_exposed(settings, host)
    if not open_to:
        return [ok(CHECK, "without an API key, from this computer alone")]
    return [
        warning(
            CHECK,
            f"requests that reach {' or '.join(open_to)} need no API key",
            "unset UPSCALED_AUTH, or serve on --host 127.0.0.1; keep it only in a network whose "
            "every machine you trust",
        )
    ]


def find_exposed(settings: Settings, host: str) -> list[str]:
    """Return where others than this computer reach a service that listens on `host` ("": all)."""
    host = host or "0.0.0.0"  # noqa: S104  (named only)
    public_host = urlsplit(settings.public_base_url).hostname or ""
    return [each for each in (host, public_host) if each and not is_loopback(each)]
