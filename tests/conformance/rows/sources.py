# ruff: noqa: E501 - a row of the table is a line
"""`image_url`: how it may be spelt, and what the server behind it may answer.

`SPELLINGS` are rows like all others. `ODD_SOURCES` need a server that the kit's own answers for.
"""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance.table import SOURCE, Part, Refused, Row, Upscaled, form, json_body

SPELLING = "JSON body: image_url; white space around it is none of it"
URLS = (
    "400 invalid_parameter: image_url of a bad scheme or syntax, unreachable, refused by policy (one "
    "fixed text for all of these)"
)
READING = "image_url: an image host that curl reads is read"
WHOLE = "400 invalid_parameter: image_url unreachable; never half an image"
SIZE = "400 file_size_too_large: over 25 MB fetched; reading stops early"

UNTAKEN = Refused("invalid_parameter", within_s=15)
TOO_LARGE = Refused("file_size_too_large", within_s=15)

SPACES = (("a space", " "), ("a line feed", "\n"), ("CR and LF", "\r\n"), ("a tab", "\t"))
USERS = (
    "http://a[b]@/",
    "http://a[b]@example.com/",
    "http://[a]@example.com/x.png",
    "http://a@b@example.com/",
    "http://user:word@example.com/",
)
BRACKETS = (
    "http://a[b]/",
    "http://[]/",
    "http://[::1]x/",
    "http://[::1%25lo]/",
    "http://[v1.x]/",
    "http://]/",
)

SPELLINGS = (
    *(
        Row(
            f"JSON image_url with {what} behind is taken",
            SPELLING,
            json_body({"image_url": SOURCE + space, "scale": 2}),
            Upscaled(),
            "ours",
        )
        for what, space in SPACES
    ),
    Row(
        "JSON image_url with white space on both sides is taken",
        SPELLING,
        json_body({"image_url": f" {SOURCE} ", "scale": 2}),
        Upscaled(),
        "ours",
    ),
    Row(
        "form image_url with a line feed behind is taken",
        SPELLING,
        form("", "2", Part("image_url", SOURCE + "\r\n")),
        Upscaled(),
        "ours",
    ),
    *(
        Row(
            f"JSON image_url {url} is refused",
            URLS,
            json_body({"image_url": url, "scale": 2}),
            UNTAKEN,
            "ours",
        )
        for url in (*USERS, *BRACKETS)
    ),
)


@dataclass(frozen=True)
class SourceRow:
    """A claim about what a source answers. `respond` makes the answer's bytes of the picture's."""

    claim: str
    line: str
    respond: Callable[[bytes], bytes]
    answer: Refused | Upscaled


def answer(
    *lines: str, pack: Callable[[bytes], bytes] = bytes, behind: bytes = b""
) -> Callable[[bytes], bytes]:
    """An answer of 200 with these header lines; `{length}` becomes its body's."""

    def render(picture: bytes) -> bytes:
        body = pack(picture)
        head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "Connection: close", "", ""])
        return head.replace("{length}", str(len(body))).encode("latin-1") + body + behind

    return render


def chunks(picture: bytes, extension: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    pieces = [picture[at : at + 700] for at in range(0, len(picture), 700)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + end


def read(claim: str, respond: Callable[[bytes], bytes]) -> SourceRow:
    return SourceRow(claim, READING, respond, Upscaled())


def cut(claim: str, respond: Callable[[bytes], bytes]) -> SourceRow:
    return SourceRow(claim, WHOLE, respond, UNTAKEN)


LENGTH = "Content-Length: {length}"
CHUNKED = "Transfer-Encoding: chunked"

ODD_SOURCES = (
    read("a header of 9 KB", answer(LENGTH, "Content-Security-Policy: " + "x" * 9000)),
    read("a header of 90 KB", answer(LENGTH, "X: " + "x" * 90_000)),
    read("150 headers", answer(LENGTH, *[f"X-{number}: v" for number in range(150)])),
    read("bytes behind the body", answer(LENGTH, behind=b"extra")),
    read("Content-Length twice with one value", answer(LENGTH, LENGTH)),
    read("Content-Length twice in one line", answer("Content-Length: {length}, {length}")),
    read("of two Content-Lengths the last", answer("Content-Length: 5", LENGTH)),
    read("a space before a colon", answer("X-A : 1", LENGTH)),
    read("a space within a name", answer("X-Bad Header: 1", LENGTH)),
    read("a space before the colon of Content-Length", answer("Content-Length : {length}")),
    read("400 headers of one name", answer(LENGTH, *["Link: <https://a.example>"] * 400)),
    read("a control character", answer("X: a\x01b", LENGTH)),
    read("bare line feeds", lambda picture: b"HTTP/1.1 200 OK\n\n" + picture),
    read("no reason", lambda picture: answer(LENGTH)(picture).replace(b" OK", b"", 1)),
    read("HTTP/1.0 until it closes", lambda picture: b"HTTP/1.0 200 OK\r\n\r\n" + picture),
    read("a folded header", answer("X-Fold: a", " b", LENGTH)),
    read("bytes outside ASCII", answer("X: \xe9\xff", LENGTH)),
    read(
        "an interim answer",
        lambda picture: b"HTTP/1.1 103 E\r\nLink: <a>\r\n\r\n" + answer(LENGTH)(picture),
    ),
    read("chunks", answer(CHUNKED, pack=chunks)),
    read("chunks with extensions", answer(CHUNKED, pack=lambda picture: chunks(picture, b";a=b"))),
    read(
        "chunks with a trailer",
        answer(CHUNKED, pack=lambda picture: chunks(picture, end=b"0\r\nX: y\r\n\r\n")),
    ),
    read("chunks and a Content-Length", answer("Content-Length: 5", CHUNKED, pack=chunks)),
    read("neither length nor chunks", answer()),
    read("a body stored as gzip", answer(LENGTH, "Content-Encoding: gzip", pack=gzip.compress)),
    read(
        "a body stored as deflate", answer(LENGTH, "Content-Encoding: deflate", pack=zlib.compress)
    ),
    read(
        "a body stored as gzip in chunks",
        answer(
            CHUNKED, "Content-Encoding: gzip", pack=lambda picture: chunks(gzip.compress(picture))
        ),
    ),
    read("a picture called gzip", answer(LENGTH, "Content-Encoding: gzip")),
    read("an encoding that is none", answer(LENGTH, "Content-Encoding: UTF-8")),
    cut("fewer bytes than Content-Length", answer("Content-Length: 100000")),
    cut("of two Content-Lengths the last too long", answer(LENGTH, "Content-Length: 100000")),
    cut("no number for Content-Length", answer("Content-Length: -1")),
    cut("chunks without an end", answer(CHUNKED, pack=lambda picture: chunks(picture, end=b""))),
    cut(
        "chunks without the last line",
        answer(CHUNKED, pack=lambda picture: chunks(picture, end=b"0\r\n")),
    ),
    cut("no chunks where chunks are promised", answer(CHUNKED)),
    cut(
        "gzip without an end",
        answer("Content-Encoding: gzip", pack=lambda picture: gzip.compress(picture)[:-1]),
    ),
    cut("a head without an end", lambda _: b"HTTP/1.1 200 OK\r\nX: y"),
    cut("nothing", lambda _: b""),
    cut("garbage in place of HTTP", lambda _: b"garbage\r\n\r\n"),
    cut("a status of six digits", lambda _: b"HTTP/1.1 999999 OK\r\n\r\n"),
    cut("an interim answer alone", lambda _: b"HTTP/1.1 103 Early\r\n\r\n"),
    cut("a head of 400 KB", answer(LENGTH, "X: " + "x" * 400_000)),
    cut(
        "1,000 interim answers",
        lambda picture: b"HTTP/1.1 103 E\r\n\r\n" * 1000 + answer(LENGTH)(picture),
    ),
    SourceRow(
        "26 MB of zeros as gzip",
        SIZE,
        answer("Content-Encoding: gzip", pack=lambda _: gzip.compress(bytes(26 * 1024 * 1024))),
        TOO_LARGE,
    ),
)
