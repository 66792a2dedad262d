"""`image_url`: what is fetched, how far, and what is never contacted."""

import itertools
import json
import socket
from collections.abc import Iterator

import pytest

from tests.conformance.judge import check_refused, check_upscaled, error_text
from tests.conformance.listener import (
    MEGABYTE,
    Behaviour,
    Listener,
    answers,
    breaks_off,
    declares,
    drips,
    falls_silent,
    listening,
    redirects,
    streams,
)
from tests.conformance.own_settings import ONLY_ALLOWED, SOURCE_TIMEOUT_S
from tests.conformance.pictures import MAX_FILE_BYTES, PICTURES
from tests.conformance.requesting import perform
from tests.conformance.table import Part, Refused, Upscaled, fields, form, json_body
from tests.conformance.wire import Reply, Target

pytestmark = pytest.mark.ours  # the hosted server cannot reach this machine
PATHS = (f"/source-{number}" for number in itertools.count())
UNTAKEN = Refused("invalid_parameter")
SLOWEST_S = SOURCE_TIMEOUT_S + 2


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


def test_three_redirects_are_followed(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), answers(200, photo()))
    for _ in range(3):
        url = listener.on(next(PATHS), redirects(url))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


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
def test_a_source_is_refused_by_what_it_answers(
    what: str, target: Target, listener: Listener
) -> None:
    behaviour, code = REFUSALS[what]
    reply = fetch(target, listener.on(next(PATHS), behaviour))
    check_refused(reply, Refused(code, within_s=3))


def test_a_source_that_breaks_off_is_refused(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), breaks_off(photo()[:200], 100_000))
    reply = fetch(target, url)
    assert json.loads(reply.body)["error_code"] in ("invalid_parameter", "malformed_image"), reply
    check_refused(reply, Refused(reply.json()["error_code"], within_s=3))


def test_a_declared_26_mb_is_refused_unread(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, declares(MAX_FILE_BYTES + 1, photo()))
    check_refused(fetch(target, url), Refused("file_size_too_large", within_s=3))
    assert listener.bytes_out[path] < 10 * MEGABYTE  # what fits into the buffers on the way


def test_reading_an_endless_stream_stops_early(target: Target, listener: Listener) -> None:
    path = next(PATHS)
    url = listener.on(path, streams(photo(), 200 * MEGABYTE))
    check_refused(fetch(target, url), Refused("file_size_too_large"))
    assert listener.bytes_out[path] < 40 * MEGABYTE


def test_a_stream_of_exactly_25_mb_is_taken(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), streams(photo(), MAX_FILE_BYTES))
    check_upscaled(fetch(target, url), Upscaled(), PICTURES["photo"], target)


def test_a_stream_of_a_byte_more_is_refused(target: Target, listener: Listener) -> None:
    url = listener.on(next(PATHS), streams(photo(), MAX_FILE_BYTES + 1))
    check_refused(fetch(target, url), Refused("file_size_too_large"))


@pytest.mark.parametrize(
    "behaviour", [falls_silent(10), drips(bytes(100), 10)], ids=["silent", "dripping"]
)
def test_a_slow_source_is_given_up(
    behaviour: Behaviour, target: Target, listener: Listener
) -> None:
    url = listener.on(next(PATHS), behaviour)
    check_refused(fetch(target, url), Refused("invalid_parameter", within_s=SLOWEST_S))


def test_every_untaken_url_is_answered_the_same_text(
    target: Target, strict: Target, listener: Listener
) -> None:
    """Nobody maps the inside network: closed, open, forbidden and unknown all look alike."""
    urls = (
        "http://127.0.0.1:9/photo.jpg",
        "http://nobody.invalid/photo.jpg",
        "http://10.0.0.1/photo.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "ftp://example.com/photo.jpg",
        "no url",
        listener.on(next(PATHS), answers(404, b"")),
        listener.on(next(PATHS), answers(200, photo())),
    )
    replies = [fetch(strict, url) for url in urls]
    replies.append(fetch(target, urls[0]))
    replies.append(fetch(target, urls[6]))
    for reply in replies:
        check_refused(reply, UNTAKEN)
    assert len({error_text(reply) for reply in replies}) == 1


FORBIDDEN = (
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3",
    "192.0.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "[fe80::1]",
    "[fd00::1]",
    "[fec0::1]", "[ff02::1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::a00:1]",
    "[2002:a00:1::1]", "[fd00:ec2::254]", "metadata.google.internal",
)  # fmt: skip


@pytest.mark.parametrize("host", FORBIDDEN)
def test_an_address_inside_is_refused_at_once(host: str, target: Target) -> None:
    """On the open server: its allowance holds for loopback and for nothing else."""
    reply = fetch(target, f"http://{host}/latest/meta-data/")
    check_refused(reply, Refused("invalid_parameter", within_s=2.5))


LOOPBACKS = (
    "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0177.0.0.1",
    "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[0:0:0:0:0:0:0:1]", "127.0.0.1.", "LOCALHOST.", "①②⑦.0.0.1", "user@127.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACKS)
def test_no_spelling_of_loopback_is_contacted(
    host: str, strict: Target, listener_everywhere: Listener
) -> None:
    before = listener_everywhere.all_hits
    reply = fetch(strict, listener_everywhere.url("/photo.jpg", host))
    check_refused(reply, Refused("invalid_parameter", within_s=2.5))
    assert listener_everywhere.all_hits == before


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def listener_everywhere() -> Iterator[Listener]:
    """Listens on every address of this machine, and would gladly answer a picture."""
    with listening("::" if has_ipv6() else "0.0.0.0") as listener:
        listener.on("/photo.jpg", answers(200, photo()))
        yield listener


@pytest.fixture(scope="module")
def allowed_listener() -> Iterator[Listener]:
    """Where the strict server may fetch from."""
    try:
        with listening(ONLY_ALLOWED) as listener:
            yield listener
    except OSError:
        pytest.skip(f"this machine has no {ONLY_ALLOWED}")


def test_an_allowed_address_is_fetched(strict: Target, allowed_listener: Listener) -> None:
    url = allowed_listener.on(next(PATHS), answers(200, photo()))
    request = json_body({"image_url": url, "scale": 2}).plus(("Accept", "image/*"))
    reply = perform(request, strict)
    check_upscaled(reply, Upscaled(is_binary=True), PICTURES["photo"], strict)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_a_redirect_to_a_forbidden_address_is_not_followed(
    host: str, strict: Target, allowed_listener: Listener, listener: Listener
) -> None:
    path = next(PATHS)
    listener.on(path, answers(200, photo()))
    url = allowed_listener.on(path, redirects(listener.url(path, host)))
    check_refused(fetch(strict, url), UNTAKEN)
    assert allowed_listener.hits[path] == 1
    assert listener.hits[path] == 0
