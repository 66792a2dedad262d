"""Dry runs over a real socket: checked whole, and not upscaled, stored or charged."""

from collections.abc import Mapping
from typing import Any

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from upscaled.api.request.choices import parse_dry_run_header
from upscaled.errors import InvalidParameter

DRY = {"X-Upscale-Dry-Run": "true"}


@pytest.mark.parametrize(
    ("values", "is_dry_run"),
    [([], False), (["true"], True), (["True"], True), (["false"], False), (["FALSE"], False)],
)
def test_true_and_false_are_understood_in_any_case(values: list[str], is_dry_run: bool) -> None:
    assert parse_dry_run_header(values) is is_dry_run


@pytest.mark.parametrize("values", [[""], ["1"], ["yes"], ["true, true"], ["true", "true"]])
def test_any_other_value_is_refused(values: list[str]) -> None:
    with pytest.raises(InvalidParameter, match=r"X-Upscale-Dry-Run must be true or false"):
        parse_dry_run_header(values)


def send_dry_run(
    service: Service, image: bytes | None = None, headers: Mapping[str, str] = DRY
) -> requests.Response:
    return service.upload(image, headers=service.headers | DRY | dict(headers))


def test_the_answer_is_the_price_the_result_and_the_time(make_service: MakeService) -> None:
    executor = ResizingExecutor()
    service = make_service(executor, metering=True, credits=1)
    answers = [send_dry_run(service), send_dry_run(service, picture(mode="RGBA"))]
    expected: dict[str, Any] = {
        "credits": 1,
        "width": 160,
        "height": 128,
        "media_type": "image/jpeg",
        "models": ["first", "second"],
        "denoise": None,
        "seconds": 0.25,
    }
    assert [answer.json() for answer in answers] == [
        expected,
        expected | {"media_type": "image/png"},
    ]
    assert executor.requests == []
    assert service.stored_files() == []
    assert service.upload().status_code == 200  # its only credit is still there


def test_without_metering_the_price_is_nothing_and_without_a_worker_the_time_unknown(
    make_service: MakeService,
) -> None:
    executor = ResizingExecutor()
    executor.is_available = False
    answer = send_dry_run(make_service(executor)).json()
    assert (answer["credits"], answer["seconds"]) == (0, None)


def test_an_address_is_fetched_and_checked_as_without_the_header(service: Service) -> None:
    url = service.upload().json()["result_url"]
    answer = requests.post(
        f"{service.url}/v1/upscale",
        json={"image_url": url, "scale": 2},
        headers=service.headers | DRY,
        timeout=5,
    )
    assert (answer.json()["width"], answer.json()["height"]) == (320, 256)


@pytest.mark.parametrize(
    ("image", "headers", "status", "code"),
    [
        (b"no picture", {}, 400, "malformed_image"),
        (picture(80, 63), {}, 400, "invalid_parameter"),
        (picture(3001, 64), {}, 400, "resolution_too_high"),
        (None, {"X-Upscale-Model": "unknown"}, 400, "invalid_parameter"),
        (None, {"X-Upscale-Dry-Run": "maybe"}, 400, "invalid_parameter"),
    ],
)
def test_a_request_that_would_be_refused_is_refused(
    service: Service, image: bytes | None, headers: dict[str, str], status: int, code: str
) -> None:
    assert_error(send_dry_run(service, image, headers), status, code)


def test_a_balance_of_nothing_is_refused(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=0)
    assert_error(send_dry_run(service), 403, "insufficient_api_credits")


def test_neither_a_job_nor_an_idempotency_key_is_made(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=1)
    named = {"Prefer": "respond-async", "Idempotency-Key": "order-17"}
    assert send_dry_run(service, headers=named).status_code == 200
    jobs = requests.get(f"{service.url}/v1/jobs", headers=service.headers, timeout=60)
    assert jobs.json()["jobs"] == []
    made = service.upload(headers=service.headers | {"Idempotency-Key": "order-17"})
    assert made.status_code == 200
    assert "Idempotent-Replayed" not in made.headers
