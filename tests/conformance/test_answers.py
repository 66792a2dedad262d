"""Every response: nothing private, no CORS, and headers for clients."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.answer_checks import check_refused, check_upscaled, fetch_result
from tests.conformance.pictures import PICTURES, PRIVATE_WORDS
from tests.conformance.raw_http import Target
from tests.conformance.requesting import perform
from tests.conformance.table import Refused, Upscaled, form, get, raw
from tests.running import Server

STAGES = ("queue", "decode", "network", "encode")
REQUESTS = (
    ("a success", form()),
    ("an image", form().plus(("Accept", "image/*"))),
    ("a refused image", form("garbage")),
    ("a refused key", form().without_key()),
    ("a refused type", raw(b"x", "text/plain")),
    ("another path", get("/v1/nothing")),
    ("another method", get("/v1/upscale")),
    ("health", get("/healthz")),
    ("metrics", get("/metrics")),
    ("a missing result", get("/public/result/00000000-0000-4000-8000-000000000000.jpg")),
)


@pytest.mark.ours
def test_every_answer_carries_a_request_id_of_its_own(target: Target) -> None:
    ids = []
    for what, request in REQUESTS:
        request_id = perform(request, target).header("x-request-id")
        assert request_id, f"{what} carries no X-Request-Id"
        ids.append(request_id)
    assert len(set(ids)) == len(ids)


@pytest.mark.ours
@pytest.mark.parametrize("accept", ["*/*", "image/*"])
def test_a_success_reports_the_time_of_each_stage(accept: str, target: Target) -> None:
    timing = perform(form().plus(("Accept", accept)), target).header("server-timing") or ""
    stages = dict(re.findall(r"([a-z_]+);dur=([0-9.]+)", timing))
    assert set(STAGES) <= set(stages), timing
    assert all(float(stages[stage]) >= 0 for stage in STAGES), timing
    assert float(stages["network"]) > 0, timing


@pytest.mark.parametrize(("what", "request_"), REQUESTS, ids=[what for what, _ in REQUESTS])
def test_no_response_has_cors_headers(what: str, request_: object, target: Target) -> None:
    with_origin = request_.plus(("Origin", "https://example.com"))  # type: ignore[attr-defined]
    reply = perform(with_origin, target)
    opened = [name for name, _ in reply.headers if name.lower().startswith("access-control-")]
    assert opened == [], what


@pytest.mark.ours
def test_a_cors_preflight_is_method_not_allowed(target: Target) -> None:
    headers = [("Origin", "https://example.com"), ("Access-Control-Request-Method", "POST")]
    check_refused(target.send("OPTIONS", "/v1/upscale", headers), Refused("method_not_allowed"))


@pytest.mark.ours
def test_head_on_the_endpoint_is_405_without_a_body(target: Target) -> None:
    reply = target.send("HEAD", "/v1/upscale")
    assert reply.status == 405, reply
    assert reply.header("allow") == "POST", reply
    assert reply.body == b""


@pytest.mark.parametrize("name", ["private_jpeg", "private_png"])
def test_nothing_private_reaches_the_output(name: str, target: Target) -> None:
    """GPS, XMP, comments and thumbnails never reach the output."""
    sent = PICTURES[name].data
    assert sum(word in sent for word in PRIVATE_WORDS) >= 4, "the picture holds what must not leave"
    body = perform(form(name).plus(("Accept", "image/*")), target).body
    assert body[:4] in (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xdb", b"\x89PNG", b"\xff\xd8\xff\xe2")
    assert [word for word in PRIVATE_WORDS if word in body] == []


def test_both_kinds_of_answer_hold_the_same_image(target: Target) -> None:
    by_url = fetch_result(perform(form(), target).json()["result_url"], target)
    as_bytes = perform(form().plus(("Accept", "image/*")), target)
    assert by_url.body == as_bytes.body


@pytest.mark.ours
def test_answers_at_the_same_time_are_never_mixed_up(own_server: Server) -> None:
    """Each client receives its own picture: eight kinds of different sizes, all under way."""
    names = (
        "photo", "odd_sides", "side_64", "rgba_png", "grey_jpeg", "orientation_6", "animated_webp",
        "palette_png",
    )  # fmt: skip
    target = Target(own_server.url, own_server.key)

    def send(number: int) -> None:
        name, scale = names[number % len(names)], 2 + 2 * (number % 3 == 0)
        reply = perform(form(name, str(scale)), target)
        check_upscaled(reply, Upscaled(scale), PICTURES[name], target)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(16)))
