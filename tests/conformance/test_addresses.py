"""`image_url`: the addresses inside, none of which is contacted or looks unlike another."""

import itertools
import socket
from collections.abc import Iterator

import pytest

from tests.conformance.answer_checks import check_refused, check_upscaled, error_text
from tests.conformance.listener import Listener, answers, listening, redirects
from tests.conformance.own_settings import ONLY_ALLOWED
from tests.conformance.pictures import PICTURES
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import perform
from tests.conformance.table import AT_ONCE_S, Refused, Upscaled, json_body

pytestmark = pytest.mark.ours  # no test probes the network of a foreign server
PATHS = (f"/address-{number}" for number in itertools.count())
UNTAKEN = Refused("invalid_parameter")


def fetch(target: Target, url: str) -> Reply:
    return perform(json_body({"image_url": url, "scale": 2}), target)


def photo() -> bytes:
    return PICTURES["photo"].data


def test_every_refused_url_is_answered_with_the_same_text(
    target: Target, strict: Target, listener: Listener
) -> None:
    """The inside network cannot be mapped: closed, open, forbidden and unknown all look alike."""
    urls = (
        "http://127.0.0.1:9/photo.jpg",
        "http://unknown.invalid/photo.jpg",
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
    check_refused(reply, Refused("invalid_parameter", within_s=AT_ONCE_S))


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
    check_refused(reply, Refused("invalid_parameter", within_s=AT_ONCE_S))
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
    """Start the web server that the strict server may fetch from."""
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
