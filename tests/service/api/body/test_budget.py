from collections.abc import Callable

import pytest

from service.api.body.budget import ARRIVING, Budget, build_budget
from service.config import load_settings
from service.errors import RateLimitExceeded
from tests.service.api.answers import assert_error
from tests.service.api.executors import HangingExecutor
from tests.service.api.pictures import picture_of_bytes
from tests.service.api.raw import Connection
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until

MB = 1024 * 1024


def test_what_is_taken_is_given_back() -> None:
    budget = Budget(100)
    with budget.share() as first:
        first.take(60)
        with budget.share() as second:
            second.take(40)
            with pytest.raises(RateLimitExceeded):
                second.take(1)
            with pytest.raises(RateLimitExceeded):
                first.take(1)
        first.take(40)
    assert budget.held_bytes == 0


def test_it_is_given_back_after_an_error_too() -> None:
    budget = Budget(100)

    def fail() -> None:
        with budget.share() as share:
            share.take(100)
            raise ValueError("any")

    with pytest.raises(ValueError, match="any"):
        fail()
    assert budget.held_bytes == 0


def test_the_queue_and_the_workers_fit_in() -> None:
    settings = load_settings({}, max_queue=3, workers=2, max_file_bytes=MB)
    assert build_budget(settings).limit_bytes == (3 + 2 + ARRIVING) * MB


@pytest.fixture
def crowded(make_service: Callable[..., Service]) -> Service:
    """One worker, no queue: 9 images of a megabyte may be here at a time. None is finished."""
    return make_service(HangingExecutor(), max_queue=0, max_file_bytes=MB)


def test_one_image_too_many_is_refused_and_the_others_stay(crowded: Service) -> None:
    """Uploads that hang in the middle; once they are gone there is room again."""
    senders = [Connection(crowded) for _ in range(9)]
    budget = crowded.app.state.context.budget
    for sender in senders:
        sender.send_head("Content-Type: application/json", f"Content-Length: {MB}")
        sender.send(b" " * (MB - 1))
    wait_until(lambda: budget.held_bytes == 9 * (MB - 1))
    refused = crowded.upload(picture_of_bytes(MB // 2))
    assert_error(refused, 429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    senders[0].send(b" ")
    senders[0].receive().assert_error(400, "invalid_request_body")
    for sender in senders:
        sender.socket.close()
    wait_until(lambda: budget.held_bytes == 0)
