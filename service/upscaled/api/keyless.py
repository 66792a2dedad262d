"""Admit requests without an API key, where `UPSCALED_AUTH` is none, but none of a foreign web page.

Any page that a browser of this computer shows may send requests here: it need only name this
address, or have its own name resolve to it (DNS rebinding). The browser then says by `Origin` and
`Host` which page and which name it was. Programs may write what they like there, and need not: they
could as well call the service directly.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from upscaled.config import Settings
from upscaled.errors import InvalidAuthToken
from upscaled.process.listener import is_loopback

_REFUSED: Final = "Host or Origin not allowed"
_PORTS: Final = {"http": 80, "https": 443}


def refuse_foreign_page(headers: Mapping[str, str], address: str, settings: Settings) -> None:
    """Raise `InvalidAuthToken` unless `Host` and `Origin` are the service's own.

    Args:
        headers: of the request, by names in small letters.
        address: the one of this machine that the client has reached; "" where it is unknown.
    """
    host = headers.get("host", "")
    if not _is_own_name(_split(f"//{host}")[0], address, settings):
        raise InvalidAuthToken(_REFUSED, detail="the Host is not in UPSCALED_ALLOWED_HOSTS")
    origin = headers.get("origin")
    if origin is None or origin.lower() in settings.cors_origins:
        return
    if not _is_own_origin(origin, host, settings.public_base_url):
        raise InvalidAuthToken(
            _REFUSED,
            detail="the Origin differs from the Host, see UPSCALED_PUBLIC_BASE_URL"
            " and UPSCALED_CORS_ORIGINS",
        )


def _is_own_name(name: str, address: str, settings: Settings) -> bool:
    public_name = urlsplit(settings.public_base_url).hostname
    own = {settings.host.lower(), address, public_name, *settings.allowed_hosts}
    return name != "" and (is_loopback(name) or name in own)


def _is_own_origin(origin: str, host: str, public_base_url: str) -> bool:
    """Return whether a page is the service's own: of the same name and port.

    A proxy may have taken the port out of the Host, and any port could then be meant. A page of
    another port is another program's, so the port is taken from the setting alone.
    """
    scheme = origin.partition("://")[0].lower()
    # Of a proxy with TLS only the page knows the scheme, so the port stands for it.
    if scheme in _PORTS and _split(origin) == _split(f"{scheme}://{host}"):
        return True
    is_public = scheme == urlsplit(public_base_url).scheme
    return is_public and scheme in _PORTS and _split(origin) == _split(public_base_url)


def _split(origin: str) -> tuple[str, int | None]:
    """Return the name and the port of an origin, or of `//HOST`; an empty name where it is none."""
    try:
        parts = urlsplit(origin)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", None
