"""The rate: five at once and five per second for each key, with a truthful wait."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.conformance.answer_checks import check_refused
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import perform
from tests.conformance.table import AT_ONCE_S, Refused, Request, form, raw
from tests.running import Server

pytestmark = pytest.mark.ours
BURST = 5
LIMITED = Refused("rate_limit_exceeded", within_s=AT_ONCE_S)


def credits(target: Target) -> Reply:
    return target.send("GET", "/v1/credits", [("X-API-KEY", target.api_key)])


def exhaust(target: Target) -> tuple[int, Reply]:
    """Send requests until one is refused: how many passed, and the refusal; 500 cannot all pass.

    Ten at once: a slow machine may take longer than a fifth of a second for each.
    """
    passed = 0
    with ThreadPoolExecutor(10) as threads:
        for _ in range(50):
            replies = list(threads.map(credits, [target] * 10))
            refused = [reply for reply in replies if reply.status == 429]
            passed += len(replies) - len(refused)
            if refused:
                return passed, refused[-1]
    raise AssertionError("five hundred requests passed at five per second")


def perform_exhausted(request: Request, target: Target) -> Reply:
    """Return the reply to a request of a key that has none left.

    Again where a slow machine takes a fifth of a second, in which the key is given one more.
    """
    for _ in range(20):
        exhaust(target)
        reply = perform(request, target)
        if reply.status == 429:
            break
    return reply


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
    check_refused(perform_exhausted(raw(b"x", "text/plain"), hurried), LIMITED)
    check_refused(perform_exhausted(form("garbage", None), hurried), LIMITED)
    unknown_key = replace(hurried, api_key="sk_unknown")
    check_refused(perform(form(), unknown_key), Refused("invalid_auth_token"))
    check_refused(hurried.send("GET", "/v1/upscale"), Refused("method_not_allowed"))
    check_refused(hurried.send("GET", "/v1/nothing"), Refused("not_found"))


def test_an_exhausted_rate_of_one_key_refuses_no_other(hurried: Target, strict: Target) -> None:
    exhaust(hurried)
    assert credits(strict).status == 200
