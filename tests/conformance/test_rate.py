"""The rate: five at once and five per second for each key, with a truthful wait."""

import time
from dataclasses import replace

import pytest

from tests.conformance.answer_checks import check_refused
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import perform
from tests.conformance.table import Refused, form, raw
from tests.running import Server

pytestmark = pytest.mark.ours
BURST = 5
LIMITED = Refused("rate_limit_exceeded", within_s=2)


def credits(target: Target) -> Reply:
    return target.send("GET", "/v1/credits", [("X-API-KEY", target.api_key)])


def exhaust(target: Target) -> tuple[int, Reply]:
    """Send requests until one is refused: how many passed, and the refusal; 50 cannot all pass."""
    for number in range(50):
        reply = credits(target)
        if reply.status == 429:
            return number, reply
    raise AssertionError("fifty requests in a row passed at five per second")


@pytest.fixture
def hurried(strict_server: Server) -> Target:
    name = f"hurried-{time.monotonic_ns()}"
    return Target(strict_server.url, strict_server.create_key(name, credits=10))


def test_the_sixth_request_at_once_is_429_and_passes_after_retry_after(hurried: Target) -> None:
    passed, reply = exhaust(hurried)
    assert passed >= BURST, f"request {passed + 1} of a rested key was refused"
    check_refused(reply, LIMITED)
    retry_after_s = int(reply.header("retry-after") or "0")
    assert 1 <= retry_after_s <= 2, reply
    time.sleep(retry_after_s)
    assert credits(hurried).status == 200


def test_the_rate_is_checked_after_the_key_and_before_all_else(hurried: Target) -> None:
    exhaust(hurried)
    check_refused(perform(raw(b"x", "text/plain"), hurried), LIMITED)
    exhaust(hurried)
    check_refused(perform(form("garbage", None), hurried), LIMITED)
    unknown_key = replace(hurried, api_key="sk_unknown")
    check_refused(perform(form(), unknown_key), Refused("invalid_auth_token"))
    check_refused(hurried.send("GET", "/v1/upscale"), Refused("method_not_allowed"))
    check_refused(hurried.send("GET", "/v1/nothing"), Refused("not_found"))


def test_an_exhausted_rate_of_one_key_refuses_no_other(hurried: Target, strict: Target) -> None:
    exhaust(hurried)
    assert credits(strict).status == 200
