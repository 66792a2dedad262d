"""`image_url`: what is fetched, how far, and what is never contacted."""

import itertools
import json

import pytest

from tests.conformance.answer_checks import check_refused, check_upscaled
from tests.conformance.listener import (
    MEGABYTE,
    Behaviour,
    Listener,
    Visit,
    answers,
    breaks_off,
    declares,
    drips,
    falls_silent,
    redirects,
    streams,
    writes,
)
from tests.conformance.own_settings import SOURCE_TIMEOUT_S
from tests.conformance.pictures import MAX_FILE_BYTES, PICTURES
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import perform
from tests.conformance.rows.sources import ODD_SOURCES, SourceRow
from tests.conformance.table import AT_ONCE_S, Part, Refused, Upscaled, fields, form, json_body

pytestmark = pytest.mark.ours  # the hosted server cannot reach this machine
PATHS = (f"/source-{number}" for number in itertools.count())
UNTAKEN = Refused("invalid_parameter")
SLOWEST_S = SOURCE_TIMEOUT_S + 3.5  # a service that ignored the setting would take 10 s


def fetch(target: Target, url: str, scale: int = 2) -> Reply:
    return perform(json_body({"image_url": url, "scale": scale}), target)


def photo(name: str = "photo") -> bytes:
    return PICTURES[name].data


@pytest.mark.parametrize("name", ["photo", "rgba_png", "webp", "orientation_6"])
def test_a_fetched_image_is_upscaled(name: str, target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), answers(200, photo(name), "text/plain"))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES[name], target)


def test_a_form_fetches_too(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), answers(200, photo()))
    request = fields(Part("image_url", url), Part("scale", "4"))
    check_upscaled(perform(request, target), Upscaled(4), PICTURES["photo"], target)


def test_a_query_and_an_escaped_path_are_sent_on(target: Target, listener: Listener) -> None:
    url = listener.on("/a%20b/photo.jpg", answers(200, photo())) + "?size=1&name=a%2Fb"
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_with_an_image_the_url_is_never_fetched(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, answers(200, photo()))
    reply = perform(form("photo", "2", Part("image_url", url)), target)
    check_upscaled(reply, Upscaled(), PICTURES["photo"], target)
    assert listener.hits[path] == 0


def test_the_api_key_is_not_sent_on(target: Target, listener: Listener) -> None:
    seen: list[str] = []

    def record(visit: object) -> None:
        seen.append(str(visit.headers))  # type: ignore[attr-defined]
        answers(200, photo())(visit)  # type: ignore[arg-type]

    check_upscaled(
        fetch(target, listener.on(next(PATHS), record)), Upscaled(), PICTURES["photo"], target
    )
    assert seen
    assert target.api_key not in seen[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status: int, target: Target, listener: Listener) -> None:
    last = listener.on(next(PATHS), answers(200, photo()))
    url = listener.on(next(PATHS), redirects(last, status))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_a_relative_redirect_is_followed(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    listener.on(path, answers(200, photo()))
    url = listener.on(next(PATHS), redirects(path))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_ten_redirects_are_followed_and_no_more(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), answers(200, photo()))
    for _ in range(10):
        url = listener.on(next(PATHS), redirects(url))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)
    check_refused(fetch(target, listener.on(next(PATHS), redirects(url))), UNTAKEN)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/source/\xe9.png", "/source/%E9.png"),
        ("/source/é ü.png".encode(), "/source/%C3%A9%20%C3%BC.png"),
        (b"/source/a b%7e.png", "/source/a%20b%7e.png"),
        (b"/source/long.png?sig=" + b"a" * 9000, "/source/long.png"),
    ],
)
def test_a_redirect_is_followed_to_the_bytes_of_its_location(
    location: bytes, path: str, target: Target, listener: Listener
) -> None:
    listener.on(path, answers(200, photo()))
    raw = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    url = listener.on(next(PATHS), writes(raw))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_a_cookie_set_on_a_redirect_is_sent_with_the_next_request_of_that_fetch_alone(
    target: Target, listener: Listener
) -> None:
    sent: list[str | None] = []

    def note(visit: Visit) -> None:
        sent.append(visit.headers["Cookie"])
        answers(200, photo())(visit)

    last = listener.on(next(PATHS), note)
    raw = f"HTTP/1.1 302 Found\r\nSet-Cookie: a=b; Path=/\r\nLocation: {last}\r\n\r\n"
    url = listener.on(next(PATHS), writes(raw.encode()))
    for each in (url, last):
        check_upscaled(fetch(target, each), Upscaled(), PICTURES["photo"], target)
    assert sent == ["a=b", None]


@pytest.mark.parametrize("row", ODD_SOURCES, ids=lambda row: row.claim)
def test_a_source_is_read_as_by_curl(row: SourceRow, target: Target, listener: Listener) -> None:
    print(f"the contract's line: {row.line}")
    reply = fetch(target, listener.on(next(PATHS), writes(row.respond(photo()))))
    if isinstance(row.answer, Upscaled):
        check_upscaled(reply, row.answer, PICTURES["photo"], target)
    else:
        check_refused(reply, row.answer)


def test_a_loop_of_redirects_ends(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, redirects(path))
    check_refused(fetch(target, url), UNTAKEN)
    assert 1 < listener.hits[path] <= 21


REFUSALS: dict[str, tuple[Behaviour, str]] = {
    "404 with an image": (answers(404, PICTURES["photo"].data), "invalid_parameter"),
    "500": (answers(500, b"broken"), "invalid_parameter"),
    "204": (answers(204, b""), "invalid_parameter"),
    "206": (answers(206, PICTURES["photo"].data), "invalid_parameter"),
    "a redirect to a file": (redirects("file:///etc/passwd"), "invalid_parameter"),
    "a redirect to ftp": (redirects("ftp://127.0.0.1/photo.jpg"), "invalid_parameter"),
    "a redirect to nowhere": (redirects(""), "invalid_parameter"),
    "a page": (answers(200, PICTURES["html_page"].data, "text/html"), "malformed_image"),
    "garbage called an image": (answers(200, PICTURES["garbage"].data), "malformed_image"),
    "nothing": (answers(200, b""), "malformed_image"),
    "half a JPEG": (answers(200, PICTURES["truncated_jpeg"].data), "malformed_image"),
    "a GIF": (answers(200, PICTURES["gif"].data, "image/png"), "unsupported_image_format"),
    "63 px": (answers(200, PICTURES["width_63"].data), "invalid_parameter"),
    "3001 px": (answers(200, PICTURES["wide_3001"].data), "resolution_too_high"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_source_is_refused_by_its_response(what: str, target: Target, listener: Listener) -> None:
    behaviour, code = REFUSALS[what]
    reply = fetch(target, listener.on(next(PATHS), behaviour))
    check_refused(reply, Refused(code, within_s=AT_ONCE_S))


def test_a_source_that_breaks_off_is_refused(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), breaks_off(photo()[:200], 100_000))
    reply = fetch(target, url)
    assert json.loads(reply.body)["error_code"] in ("invalid_parameter", "malformed_image"), reply
    check_refused(reply, Refused(reply.json()["error_code"], within_s=AT_ONCE_S))


def test_a_declared_26_mb_is_refused_unread(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, declares(MAX_FILE_BYTES + 1, photo()))
    check_refused(fetch(target, url), Refused("file_size_too_large", within_s=AT_ONCE_S))
    assert listener.bytes_out[path] < 10 * MEGABYTE  # what fits into the buffers on the way


def test_reading_an_endless_stream_stops_early(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, streams(photo(), 200 * MEGABYTE))
    check_refused(fetch(target, url), Refused("file_size_too_large"))
    assert listener.bytes_out[path] < 40 * MEGABYTE


def test_a_stream_of_exactly_25_mb_is_accepted(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), streams(photo(), MAX_FILE_BYTES))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_a_stream_of_a_byte_more_is_refused(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), streams(photo(), MAX_FILE_BYTES + 1))
    check_refused(fetch(target, url), Refused("file_size_too_large"))


@pytest.mark.parametrize(
    "behaviour", [falls_silent(15), drips(bytes(150), 15)], ids=["silent", "dripping"]
)
def test_a_slow_source_is_refused_at_the_time_limit(
    behaviour: Behaviour, target: Target, listener: Listener
) -> None:
    url = listener.on(next(PATHS), behaviour)
    check_refused(fetch(target, url), Refused("invalid_parameter", within_s=SLOWEST_S))
