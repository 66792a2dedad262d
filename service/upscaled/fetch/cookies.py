"""Cookie store of one fetch: an image host may set a cookie on a redirect that the next needs.

`http.cookiejar` decides hosts, paths, domains and `Secure` (RFC 6265, and no cookies for whole
country domains). No cookie goes from one client's image to another's.
"""

import re
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import SimpleNamespace
from typing import Final
from urllib.request import Request

from upscaled.fetch.head import ResponseHead
from upscaled.fetch.url import SourceUrl

# curl's limits, of lib/cookie.h: MAX_SET_COOKIE_AMOUNT, MAX_NAME (of one cookie), and
# MAX_COOKIE_HEADER_LEN.
MAX_COOKIES_PER_ANSWER: Final = 50
MAX_COOKIE_BYTES: Final = 4096
MAX_HEADER_CHARACTERS: Final = 8190

# An age without a number, or of more seconds than a fetch takes by far: `CookieJar` warns, with a
# trace, of ages that are no numbers or that no float can hold.
_USELESS_AGE: Final = re.compile(
    rb";[ \t]*max-age(?![ \t]*=[ \t\"]*-?[0-9]{1,9}[ \t\"]*(?:;|$))[^;]*", re.IGNORECASE
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class CookieStore:
    """Cookies between the hops of one fetch."""

    def __init__(self) -> None:
        self._jar = CookieJar(
            DefaultCookiePolicy(
                strict_domain=True,  # nothing for all of .co.uk
                strict_ns_domain=DefaultCookiePolicy.DomainStrictNonDomain,  # host-only cookies
            )
        )

    def note(self, url: SourceUrl, head: ResponseHead) -> None:
        """Keep the cookies of the response to `url`, without overlong or control-laden ones."""
        values = [
            _USELESS_AGE.sub(b"", value)
            for value in head.fields.get("set-cookie", [])
            if len(value) <= MAX_COOKIE_BYTES and not _CONTROL.search(value)
        ]
        message = Message()
        for value in values[:MAX_COOKIES_PER_ANSWER]:
            message["Set-Cookie"] = value.decode("latin-1")
        response = SimpleNamespace(info=lambda: message)
        self._jar.extract_cookies(response, _request(url))  # type: ignore[arg-type]

    def header_for(self, url: SourceUrl) -> str:
        """Return the value of the Cookie header for a request to `url`, or an empty text."""
        request = _request(url)
        self._jar.add_cookie_header(request)
        header = request.get_header("Cookie") or ""
        if len(header) <= MAX_HEADER_CHARACTERS:
            return header
        return header[:MAX_HEADER_CHARACTERS].rpartition("; ")[0]


def _request(url: SourceUrl) -> Request:
    return Request(str(url))  # noqa: S310 - nothing is opened: the jar only reads its URL
