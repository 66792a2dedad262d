"""Credits: which key pays, when, and what is checked before it pays."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.conformance.answer_checks import check_refused, check_result_json
from tests.conformance.listener import Listener, answers, listening
from tests.conformance.own_settings import ONLY_ALLOWED
from tests.conformance.pictures import PICTURES
from tests.conformance.raw_http import RateLimiter, Target
from tests.conformance.requesting import perform
from tests.conformance.table import AT_ONCE_S, Part, Refused, Request, fields, form, json_body, raw
from tests.running import Server

pytestmark = pytest.mark.ours
WITHOUT_CREDIT = Refused("insufficient_api_credits", within_s=AT_ONCE_S)


@pytest.fixture(scope="module")
def empty_key(strict_server: Server) -> Target:
    return Target(strict_server.url, strict_server.create_key("empty_key"), RateLimiter(4.5))


@pytest.fixture(scope="module")
def paid_key(strict_server: Server) -> Target:
    """A key with exactly three credits."""
    return Target(
        strict_server.url, strict_server.create_key("paid_key", credits=3), RateLimiter(4.5)
    )


def balance(target: Target) -> int:
    reply = target.send("GET", "/v1/credits", [("X-API-KEY", target.api_key)])
    assert reply.status == 200, reply
    assert reply.header("content-type") == "application/json", reply
    body = reply.json()
    assert set(body) == {"credits_remaining", "creditsRemaining"}, reply
    assert body["credits_remaining"] == body["creditsRemaining"], reply
    assert type(body["credits_remaining"]) is int, reply
    return int(body["credits_remaining"])


def test_a_balance_is_two_equal_integers(empty_key: Target, paid_key: Target) -> None:
    assert balance(empty_key) == 0
    assert balance(paid_key) == 3


def test_without_metering_a_balance_is_large(target: Target) -> None:
    assert balance(target) > 1000


def test_no_credit_is_403(empty_key: Target) -> None:
    check_refused(perform(form(), empty_key), WITHOUT_CREDIT)


def test_a_refused_image_of_garbage_is_not_charged(empty_key: Target) -> None:
    check_refused(perform(form("garbage"), empty_key), WITHOUT_CREDIT)


def test_without_credit_nothing_is_fetched(empty_key: Target) -> None:
    with listening(ONLY_ALLOWED) as listener:
        url = listener.on("/photo.jpg", answers(200, PICTURES["photo"].data))
        check_refused(perform(json_body({"image_url": url, "scale": 2}), empty_key), WITHOUT_CREDIT)
        assert listener.all_hits == 0


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (raw(b"x", "text/plain"), "unsupported_content_type"),
        (raw(b"{", "application/json"), "invalid_request_body"),
        (form("photo", None), "missing_parameter"),
        (form("photo", "3"), "invalid_parameter"),
        (json_body({"image_url": "ftp://example.com/a.jpg", "scale": 2}), "invalid_parameter"),
        (fields(Part("image", "words"), Part("scale", "2")), "invalid_parameter"),
    ],
    ids=["content type", "body", "missing", "scale", "scheme", "text image"],
)
def test_parameters_are_checked_before_the_credit(
    request_: Request, code: str, empty_key: Target
) -> None:
    check_refused(perform(request_, empty_key), Refused(code))


def test_a_success_costs_one_credit_and_a_failure_none(paid_key: Target) -> None:
    before = balance(paid_key)
    check_refused(perform(form("garbage"), paid_key), Refused("malformed_image"))
    check_refused(perform(form("truncated_jpeg"), paid_key), Refused("malformed_image"))
    check_refused(perform(form("gif"), paid_key), Refused("unsupported_image_format"))
    assert balance(paid_key) == before
    check_result_json(perform(form(), paid_key))
    assert balance(paid_key) == before - 1
    assert perform(form().plus(("Accept", "image/*")), paid_key).status == 200
    assert balance(paid_key) == before - 2


def test_a_full_queue_refuses_at_once_and_costs_no_credit(strict_server: Server) -> None:
    """One image is worked on, one may wait: of four at the same moment two are too many."""
    crowd = Target(strict_server.url, strict_server.create_key("crowd", credits=10))
    request = form("tall_1500", "4").plus(("Accept", "image/*"))
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda _: perform(request, crowd), range(4)))
    refused = [reply for reply in replies if reply.status != 200]
    assert 1 <= len(refused) <= 3, [reply.status for reply in replies]
    for reply in refused:
        check_refused(reply, Refused("rate_limit_exceeded"))
        assert int(reply.header("retry-after") or "0") >= 1, reply
        assert reply.elapsed_s < min(done.elapsed_s for done in replies if done.status == 200)
    for _ in range(30):  # what a refused one held is given back in a moment
        time.sleep(1)
        if (left := balance(crowd)) == 10 - (4 - len(refused)):
            break
    assert left == 10 - (4 - len(refused))


def test_an_unknown_key_is_401_rather_than_403(empty_key: Target) -> None:
    unknown_key = replace(empty_key, api_key="sk_unknown")
    check_refused(perform(form(), unknown_key), Refused("invalid_auth_token"))


def test_a_bad_scale_fetches_nothing(target: Target, listener: Listener) -> None:
    url = listener.on("/never-fetched.jpg", answers(200, PICTURES["photo"].data))
    reply = perform(json_body({"image_url": url, "scale": 3}), target)
    check_refused(reply, Refused("invalid_parameter"))
    assert listener.hits["/never-fetched.jpg"] == 0
