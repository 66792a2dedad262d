from typing import Any

import pytest

from service.api.source.url import (
    MAX_URL_CHARACTERS,
    UNUSABLE_URL_TEXT,
    check_source_url,
    parse_url,
)
from service.errors import InvalidParameter


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com/a.jpg?b=c#d",
        "HTTPS://EXAMPLE.com/A",
        "http://example.com:8080/a",
        "https://example.com:443/",
        "http://[2606:4700::1111]/a",
        "http://1.1.1.1/a",
        "https://exämple.com/ä ö.jpg?ü",
        "https://example.com/" + "a" * (MAX_URL_CHARACTERS - 20),
    ],
)
def test_web_addresses_are_taken_as_they_are(url: str) -> None:
    assert check_source_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a", "file:///etc/passwd", "data:image/png;base64,AAAA", "gopher://x/"),
        *("example.com/a.jpg", "//example.com/a", "/a.jpg", "a", " ", "http://", "http:///a"),
        *("http:example.com", "https:/example.com", "http://user@example.com/", "javascript:1"),
        *("http://user:word@example.com/", "http://:word@example.com/"),
        *("http://example.com:22/", "http://example.com:25/", "http://example.com:0/"),
        *("http://example.com:65536/", "http://example.com:x/", "http://example.com:-1/"),
        *("http://[::1/", "http://[zz]/", "http://exa\nmple.com/", "http://example.com/\r\nX: y"),
        *("http://example.com/\x00", "\thttp://example.com", "http://" + "a" * MAX_URL_CHARACTERS),
        *(
            5,
            2.0,
            True,
            [],
            ["http://example.com"],
            {},
            b"http://example.com/",
            "http://\ud800.com/",
        ),
    ],
)
def test_anything_else_is_refused_in_the_one_text(url: Any) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check_source_url(url)
    assert refused.value.public_text == UNUSABLE_URL_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "https://s3.example.com/a%2Fb%7E.jpg?X-Signature=%41%2b&c=d+e%20f",
        "https://example.com/%e4%ff",
        "https://example.com/a;b=c,d!e$f",
        "https://example.com/a/../b/./c?d//e",
    ],
)
def test_a_signed_url_is_asked_for_byte_for_byte(text: str) -> None:
    url = parse_url(text)
    assert f"{url.scheme}://{url.raw_authority}{url.raw_path_qs}" == text


def test_what_needs_quoting_is_quoted() -> None:
    url = parse_url("https://exämple.com/ä b.jpg")
    assert str(url) == "https://xn--exmple-cua.com/%C3%A4%20b.jpg"
