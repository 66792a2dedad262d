"""What an `image_url` may look like, before anything is resolved or connected."""

import re
from typing import Final

from yarl import URL

from service.errors import InvalidParameter

MAX_URL_CHARACTERS: Final = 8192
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NEEDS_QUOTING: Final = re.compile(r"[^\x21-\x7e]|[\"<>\\^`{|}]")

# One text for every failure: a client learns nothing about the network behind this service.
UNUSABLE_URL_TEXT: Final = "image_url could not be fetched"


class UnusableUrl(InvalidParameter):
    default_text = UNUSABLE_URL_TEXT


def check_source_url(value: object) -> str:
    """The URL's text, once it is one that could be fetched.

    Raises:
        UnusableUrl: no text, not http or https, no host, a user name, a port that no web server
            uses, or a broken syntax.
    """
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS or _CONTROL.search(value):
        raise UnusableUrl(detail="not a URL")
    check_url(parse_url(value))
    return value


def parse_url(text: str) -> URL:
    """The URL, its escapes left as they are (a signature may cover them).

    Raises:
        UnusableUrl
    """
    try:
        url = URL(text, encoded=not _NEEDS_QUOTING.search(text))
        _ = url.port, url.raw_host
    except ValueError:
        raise UnusableUrl(detail="syntax") from None
    return url


def check_url(url: URL) -> None:
    """
    Raises:
        UnusableUrl
    """
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise UnusableUrl(detail="neither http nor https, or without a host")
    if url.raw_user is not None or url.raw_password is not None:
        raise UnusableUrl(detail="holds a user name")
    port = url.port or 0
    if port not in (80, 443) and port < 1024:
        raise UnusableUrl(detail=f"port {port}")
