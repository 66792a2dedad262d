import pytest

from upscaled.fetch.fetcher import (
    MAX_COOKIE_BYTES,
    MAX_COOKIES_PER_ANSWER,
    MAX_HEADER_CHARACTERS,
    CookieStore,
)
from upscaled.fetch.head import ResponseHead
from upscaled.fetch.url import parse_url


def sent(set_by: str, requested: str, *cookies: bytes) -> str:
    """Return the Cookie header of a request to `requested` after `set_by` has set `cookies`."""
    store = CookieStore()
    store.note(parse_url(set_by), ResponseHead(302, {"set-cookie": list(cookies)}))
    return store.header_for(parse_url(requested))


SENT = [
    ("http://a.example/x", "http://a.example/y", b"k=v"),
    ("http://a.example/x", "http://a.example:8080/y", b"k=v; Path=/"),
    ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/y", b"k=v"),
    ("http://[::1]:8080/x", "http://[::1]:8080/y", b"k=v"),
    ("http://localhost:8080/x", "http://localhost:8080/y", b"k=v"),
    ("http://a.example/x", "https://a.example/y", b"k=v; HttpOnly; SameSite=Lax"),
    ("https://a.example/x", "https://a.example/y", b"k=v; Secure"),
    ("http://www.a.example/x", "http://cdn.a.example/y", b"k=v; Domain=a.example"),
    ("http://a.example/x", "http://cdn.a.example/y", b"k=v; Domain=.a.example"),
    ("http://a.example/d/x", "http://a.example/d/e/y", b"k=v; Path=/d"),
    ("http://a.example/x", "http://a.example/y", b"k=v; Max-Age=60"),
    ("http://a.example/x", "http://a.example/y", b"k=v;Max-Age = " + b"9" * 400),
    ("http://a.example/x", "http://a.example/y", b"k=v; max-age; Path=/"),
    ("http://a.example/x", "http://a.example/y", b"k=v; max-age=soon"),
]
NOT_SENT = [
    ("http://a.example/x", "http://b.example/y", b"k=v"),
    ("http://a.example/x", "http://cdn.a.example/y", b"k=v"),
    ("http://a.example/x", "http://b.example/y", b"k=v; Domain=b.example"),
    ("http://a.example/x", "http://b.example/y", b"k=v; Domain=.example"),
    ("http://a.example/x", "http://bada.example/y", b"k=v; Domain=a.example"),
    ("http://a.co.uk/x", "http://b.co.uk/y", b"k=v; Domain=.co.uk"),
    ("http://127.0.0.1/x", "http://127.0.0.2/y", b"k=v; Domain=0.0.1"),
    ("https://a.example/x", "http://a.example/y", b"k=v; Secure"),
    ("http://a.example/d/x", "http://a.example/e/y", b"k=v; Path=/d"),
    ("http://a.example/x", "http://a.example/y", b"k=v; Max-Age=0"),
    ("http://a.example/x", "http://a.example/y", b"k=v; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
    ("http://a.example/x", "http://a.example/y", b"k=v\rX-Injected: 1"),
    ("http://a.example/x", "http://a.example/y", b"k=\x01"),
]


@pytest.mark.parametrize(("expected", "cases"), [("k=v", SENT), ("", NOT_SENT)])
def test_a_cookie_is_sent_to_its_host_and_path_and_nowhere_else(
    expected: str, cases: list[tuple[str, str, bytes]]
) -> None:
    for set_by, requested, cookie in cases:
        assert sent(set_by, requested, cookie) == expected, (set_by, requested, cookie)


def test_a_later_hop_may_change_a_cookie() -> None:
    url = parse_url("http://a.example/")
    store = CookieStore()
    for cookie in (b"k=1", b"k=2"):
        store.note(url, ResponseHead(302, {"set-cookie": [cookie, b"j=3"]}))
    assert sorted(store.header_for(url).split("; ")) == ["j=3", "k=2"]


def test_a_cookie_of_the_limit_is_kept_and_a_longer_one_is_not() -> None:
    where = "http://a.example/"
    assert sent(where, where, b"k=" + b"v" * (MAX_COOKIE_BYTES - 2)).startswith("k=v")
    assert sent(where, where, b"k=" + b"v" * (MAX_COOKIE_BYTES - 1)) == ""


def test_no_more_cookies_than_curl_accepts_are_kept() -> None:
    where = "http://a.example/"
    cookies = [b"k%d=v" % number for number in range(MAX_COOKIES_PER_ANSWER + 1)]
    assert len(sent(where, where, *cookies).split("; ")) == MAX_COOKIES_PER_ANSWER


def test_a_header_is_cut_between_two_cookies() -> None:
    where = "http://a.example/"
    cookies = [b"k%d=%s" % (number, b"v" * 3000) for number in range(5)]
    header = sent(where, where, *cookies)
    assert len(header) <= MAX_HEADER_CHARACTERS
    assert {len(cookie) for cookie in header.split("; ")} == {3003}


def test_bytes_outside_ascii_are_sent_back_unchanged() -> None:
    where = "http://a.example/"
    assert sent(where, where, b"k=\xe9\xc3").encode("latin-1") == b"k=\xe9\xc3"
