from collections.abc import Callable

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.serving import Service
from upscaled.api.routes.credits import UNMETERED_CREDITS


def test_the_balance_in_both_spellings(make_service: Callable[..., Service]) -> None:
    service = make_service(metering=True, credits=42)
    answer = service.get("/v1/credits", headers=service.headers)
    assert answer.json() == {"credits_remaining": 42, "creditsRemaining": 42}
    assert answer.headers["Content-Type"] == "application/json"
    assert_request_id(answer)
    assert service.upload().status_code == 200
    assert service.get("/v1/credits", headers=service.headers).json()["credits_remaining"] == 41


def test_without_metering_a_large_constant(service: Service) -> None:
    answer = service.get("/v1/credits", headers=service.headers).json()
    assert answer == {"credits_remaining": UNMETERED_CREDITS, "creditsRemaining": UNMETERED_CREDITS}
    assert service.upload().status_code == 200
    assert service.get("/v1/credits", headers=service.headers).json() == answer


def test_a_key_is_needed(service: Service) -> None:
    assert_error(service.get("/v1/credits"), 401, "invalid_auth_token")


def test_asking_counts_against_the_rate(make_service: Callable[..., Service]) -> None:
    service = make_service(rate_per_s=0.5, rate_burst=1)
    assert service.get("/v1/credits", headers=service.headers).status_code == 200
    refused = service.get("/v1/credits", headers=service.headers)
    assert_error(refused, 429, "rate_limit_exceeded")
    assert refused.headers["Retry-After"] == "2"
