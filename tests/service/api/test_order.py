"""The order of checks: each request here violates two rules, and the earlier one answers."""

from collections.abc import Callable

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.executors import FailingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import Service
from upscaled.errors import RateLimitExceeded
from upscaled.state import RateLimit

FORBIDDEN_URL = "http://127.0.0.2:49999/"


def test_path_and_method_come_before_the_key(service: Service) -> None:
    assert_error(requests.post(f"{service.url}/v1/other", timeout=5), 404, "not_found")
    assert_error(requests.get(f"{service.url}/v1/upscale", timeout=5), 405, "method_not_allowed")


def test_the_key_comes_before_the_content_type(service: Service) -> None:
    answer = requests.post(f"{service.url}/v1/upscale", data=b"x", timeout=5)
    assert_error(answer, 401, "invalid_auth_token")


def test_the_key_comes_before_the_rate(make_service: Callable[..., Service]) -> None:
    service = make_service(rate_per_s=0.01, rate_burst=1)
    assert service.upload().status_code == 200
    assert_error(service.upload(headers={"X-API-KEY": "wrong"}), 401, "invalid_auth_token")
    assert_error(service.upload(), 429, "rate_limit_exceeded")


def test_a_key_has_its_own_rate_as_soon_as_it_is_set(make_service: Callable[..., Service]) -> None:
    service = make_service(rate_per_s=0.01, rate_burst=1)
    assert service.upload().status_code == 200
    assert_error(service.upload(), 429, "rate_limit_exceeded")
    service.state.keys.set_rate("test", RateLimit(per_s=1000, burst=3))
    assert [service.upload().status_code for _ in range(3)] == [200] * 3
    service.state.keys.set_rate("test", RateLimit())
    assert [service.upload().status_code for _ in range(2)] == [200, 429]


def test_the_rate_comes_before_the_content_type(make_service: Callable[..., Service]) -> None:
    service = make_service(rate_per_s=0.01, rate_burst=1)
    url = f"{service.url}/v1/upscale"
    first = requests.post(url, headers=service.headers, data=b"x", timeout=5)
    assert_error(first, 400, "unsupported_content_type")
    second = requests.post(url, headers=service.headers, data=b"x", timeout=5)
    assert_error(second, 429, "rate_limit_exceeded")


def test_the_content_type_comes_before_the_declared_length(service: Service) -> None:
    headers = service.headers | {"Content-Type": "text/plain"}
    body = bytes(service.settings.max_file_bytes + 1_000_000)
    answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=body, timeout=30)
    assert_error(answer, 400, "unsupported_content_type")


def test_the_declared_length_comes_before_the_body(make_service: Callable[..., Service]) -> None:
    service = make_service(max_file_bytes=1024)
    headers = service.headers | {"Content-Type": "application/json"}
    answer = requests.post(
        f"{service.url}/v1/upscale", headers=headers, data=b"{" * 200_000, timeout=5
    )
    assert_error(answer, 400, "file_size_too_large")


def test_a_broken_body_comes_before_what_is_missing(service: Service) -> None:
    headers = service.headers | {"Content-Type": "application/json"}
    answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=b"{", timeout=5)
    assert_error(answer, 400, "invalid_request_body")


def test_missing_comes_before_invalid(service: Service) -> None:
    assert_error(service.send_json({"scale": 3}), 400, "missing_parameter")
    assert_error(service.send_json({"image_url": "nonsense"}), 400, "missing_parameter")
    answer = service.upload(data={"image": "text"}, files={"x": b""})
    assert_error(answer, 400, "missing_parameter")


@pytest.fixture
def poor(make_service: Callable[..., Service]) -> Service:
    """A service that meters, and a key without credits."""
    return make_service(metering=True, credits=0)


def test_invalid_comes_before_the_credit(poor: Service) -> None:
    assert_error(poor.send_json({"image_url": FORBIDDEN_URL, "scale": 3}), 400, "invalid_parameter")
    assert_error(poor.send_json({"image_url": "nonsense", "scale": 2}), 400, "invalid_parameter")


def test_the_credit_comes_before_fetching(poor: Service) -> None:
    answer = poor.send_json({"image_url": FORBIDDEN_URL, "scale": 2})
    text = assert_error(answer, 403, "insufficient_api_credits")
    assert text == "Insufficient credits available"


def test_the_credit_comes_before_the_format(poor: Service) -> None:
    assert_error(poor.upload(b"garbage"), 403, "insufficient_api_credits")


def test_the_format_comes_before_the_size(service: Service) -> None:
    answer = service.upload(picture(10, 10, format_name="GIF"))
    assert_error(answer, 400, "unsupported_image_format")


def test_too_small_comes_before_too_large(service: Service) -> None:
    assert_error(service.upload(picture(10, 3001)), 400, "invalid_parameter")


def test_the_size_comes_before_the_queue(make_service: Callable[..., Service]) -> None:
    service = make_service(FailingExecutor(RateLimitExceeded(5)))
    assert_error(service.upload(picture(3001, 64)), 400, "resolution_too_high")
    assert_error(service.upload(), 429, "rate_limit_exceeded")
