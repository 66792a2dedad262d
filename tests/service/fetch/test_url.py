from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from upscaled.errors import InvalidParameter
from upscaled.fetch.url import (
    MAX_LOCATION_BYTES,
    MAX_URL_CHARACTERS,
    UNUSABLE_URL_TEXT,
    UnusableUrl,
    check_source_url,
    join_url,
    parse_url,
)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com", "https://example.com/a.jpg?b=c#d", "HTTPS://EXAMPLE.com/A"),
        *("http://example.com:8080/a", "https://example.com:443/", "http://[2606:4700::1111]/a"),
        *("http://1.1.1.1/a", "https://exämple.com/ä ö.jpg?ü", "https://☃.example/"),
        *("https://a_b.example.com./", "https://example.com:/", "https://ex%61mple.com/"),
        "https://example.com/[a]?[b]@c:d",
        "https://example.com/" + "a" * (MAX_URL_CHARACTERS - 20),
    ],
)
def test_http_urls_are_parsed_unchanged(url: str) -> None:
    assert check_source_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a", "file:///etc/passwd", "data:image/png;base64,AAAA", "gopher://x/"),
        *("example.com/a.jpg", "//example.com/a", "/a.jpg", "a", " ", "http://", "http:///a"),
        *("http:example.com", "https:/example.com", "http://user@example.com/", "javascript:1"),
        *("http://user:word@example.com/", "http://:word@example.com/", "http://example.com:22/"),
        *("http://example.com:25/", "http://example.com:0/", "http://example.com:65536/"),
        *("http://example.com:x/", "http://example.com:-1/", "http://[::1/", "http://[zz]/"),
        *("http://exa\nmple.com/", "http://example.com/\r\nX: y", "http://example.com/\x00"),
        *("http://example.com/\ta", "http://" + "a" * MAX_URL_CHARACTERS, "http://a[b]@/"),
        *("http://a[b]@example.com/", "http://[@]/", "http://a[b]/", "http://[]/"),
        *("http://@example.com/", "http://a@b@example.com/", "http://example.com%40b/"),
        *("http://%/", "http://[::1%25eth0]/", "http://[::1]x/", "http://%80/", "http://[v1.a]/"),
        *("http://./", "http://exa mple.com/", "http://exa\\mple.com/"),
        *("http://example.com:80:80/", "http://:80/", "http://example.com:000080/"),
        *("http://" + "ä" * 300 + "/", "http://example.com/\udfff", "http://xn--a\u00e4/"),
        *("http://a\ufffdb/", "http://％/", 5, 2.0, True, [], ["http://example.com"], {}),
        *(b"http://example.com/", "http://\ud800.com/"),
    ],
)
def test_any_other_url_is_refused_with_the_same_text(url: Any) -> None:
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
def test_a_signed_url_is_requested_byte_for_byte(text: str) -> None:
    url = parse_url(text)
    assert str(url) == text


def test_only_characters_that_need_it_are_quoted() -> None:
    url = parse_url("HTTPS://EXämple.com:443/ä b%7E%2b.jpg?x=%c3 ü#top")
    assert str(url) == "https://xn--exmple-cua.com/%C3%A4%20b%7E%2b.jpg?x=%c3%20%C3%BC"
    assert url.path == "/%C3%A4%20b%7E%2b.jpg"


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("http://example.com:80/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("https://example.com:443", "example.com"),
        ("http://[2606:4700:0::1111]/", "[2606:4700::1111]"),
        ("http://[::ffff:1.1.1.1]:8080/", "[::ffff:101:101]:8080"),
        ("http://１２７.0.0.1/", "127.0.0.1"),
        ("http://127。0。0。1/", "127.0.0.1"),
        ("http://%31%32%37.0.0.1/", "127.0.0.1"),
        ("http://faß.example/", "xn--fa-hia.example"),
    ],
)
def test_the_host_is_normalised(text: str, authority: str) -> None:
    assert parse_url(text).authority == authority


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", " \n ", "\u00a0", "\u3000"])
def test_white_space_around_a_url_is_stripped(space: str) -> None:
    for text in (f"http://example.com/a{space}", f"{space}http://example.com/a{space}"):
        assert check_source_url(text) == "http://example.com/a"


BASE = parse_url("https://example.com:8443/d/e/f?g#h")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/a", "https://example.com:8443/a"),
        (b"a", "https://example.com:8443/d/e/a"),
        (b"../a?b#c", "https://example.com:8443/d/a?b"),
        (b"./", "https://example.com:8443/d/e/"),
        (b"?b=2", "https://example.com:8443/d/e/f?b=2"),
        (b"#x", "https://example.com:8443/d/e/f?g"),
        (b"//other.example/a", "https://other.example/a"),
        (b"http://other.example", "http://other.example/"),
        (b"HTTP://Other.example/A", "http://other.example/A"),
        (b"/a/../b/./c%7E?x=%2b", "https://example.com:8443/a/../b/./c%7E?x=%2b"),
        (b" /a b ", "https://example.com:8443/a%20b"),
        (b"/a?", "https://example.com:8443/a?"),
        (b"/a:b", "https://example.com:8443/a:b"),
        ("/é ü".encode(), "https://example.com:8443/%C3%A9%20%C3%BC"),
        (b"/\xe9.png", "https://example.com:8443/%E9.png"),
        (b"\xe9.png?\xfc", "https://example.com:8443/d/e/%E9.png?%FC"),
        ("https://exämple.com/ä".encode(), "https://xn--exmple-cua.com/%C3%A4"),
    ],
)
def test_a_redirect_leads_to_the_target_that_curl_follows(location: bytes, target: str) -> None:
    assert str(join_url(BASE, location)) == target


@pytest.mark.parametrize(
    "location",
    [
        *(b"", b" ", b"ftp://example.com/", b"file:///etc/passwd", b"data:,x", b"http:/a"),
        *(b"http:a", b"//", b"///a", b"//a@b/", b"http://a[b]@/", b"//[", b"/a\tb", b"/a\x00"),
        *(b"//example.com:22/", b"/" + b"a" * MAX_LOCATION_BYTES),
    ],
)
def test_a_redirect_to_an_invalid_target_is_refused(location: bytes) -> None:
    with pytest.raises(UnusableUrl):
        join_url(BASE, location)


def test_a_redirect_may_be_as_long_as_the_limit() -> None:
    assert join_url(BASE, b"/" + b"a" * (MAX_LOCATION_BYTES - 1)).path.endswith("aaa")


URL_MARKS = [
    *("http", "https", "://", "//", "/", "[", "]", "@", ":", "::1", "%", "%25", "?", "#", "\\"),
    *("..", ".", "80", "99999", "xn--", "１２７", "。", "\u200d", "\u0301", "ß", "💩", "\ud800"),
]
URL_PARTS = st.lists(st.one_of(st.sampled_from(URL_MARKS), st.text(max_size=5)), max_size=12).map(
    "".join
)


@pytest.mark.slow
@hypothesis_settings(max_examples=300, deadline=None)
@given(st.one_of(URL_PARTS, st.text()))
@example("a[b]@/")
@example("x[y]@example.com/")
@example("[@]")
def test_no_text_raises_anything_else(text: str) -> None:
    """And what passes can be sent: one line of printable ASCII, and a host that is one."""
    for url in (text, f"http://{text}", f"https://example.com{text}", f"http://a{text}@b/"):
        try:
            parsed = parse_url(check_source_url(url))
        except UnusableUrl:
            continue
        for sent in (parsed.target, parsed.authority):
            assert sent.isascii()
            assert sent.isprintable()
            assert " " not in sent
        assert not set(parsed.host) & set("/?#@[]%\\")
        assert str(parse_url(str(parsed))) == str(parsed)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(), URL_PARTS.map(lambda text: text.encode(errors="surrogatepass"))))
def test_no_location_raises_anything_else(location: bytes) -> None:
    for value in (location, b"//" + location, b"http://" + location, b"/" + location):
        try:
            target = join_url(BASE, value)
        except UnusableUrl:
            continue
        assert str(parse_url(str(target))) == str(target)
