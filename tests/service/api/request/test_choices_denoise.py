"""`X-Upscale-Denoise` over a real socket: with jobs, dry runs, repeated requests and reuse."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from tests.service.api.answers import assert_error
from tests.service.api.executors import IdleExecutor
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from tests.service.denoising import NAME, PARTNER, place_file
from upscaled.api.request.choices import read_denoise_strength
from upscaled.errors import InvalidParameter

AT_HALF = {"X-Upscale-Model": NAME, "X-Upscale-Denoise": "0.5"}


def read(*headers: str, **fields: object) -> float | None:
    raw = [(b"x-upscale-denoise", value.encode()) for value in headers]
    return read_denoise_strength(Headers(raw=raw), fields)


@pytest.mark.parametrize(
    ("text", "number", "strength"),
    [
        *(("0", 0, 0), ("1", 1, 1), ("1.0", 1.0, 1), ("0.5", 0.5, 0.5), (".25", 0.25, 0.25)),
        ("0.00001", 1e-5, 1e-5),
    ],
)
def test_headers_and_fields_have_the_same_meaning(
    text: str, number: object, strength: float
) -> None:
    assert read(text) == strength
    assert read(x_upscale_denoise=text) == strength
    assert read(text, x_upscale_denoise=number) == strength
    assert read() is None


@pytest.mark.parametrize(
    "text", ["", "-0.1", "1.1", "1.01", "nan", "inf", "1e-1", "0,5", "50", "half", " ", "0.5 0.5"]
)
def test_a_strength_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="X-Upscale-Denoise must be a number from 0 to 1"):
        read(text)
    with pytest.raises(InvalidParameter, match="X-Upscale-Denoise must be a number from 0 to 1"):
        read(x_upscale_denoise=text or True)


@pytest.mark.parametrize("number", [-0.5, 1.5, 2, 1e300, float("nan"), float("inf"), True])
def test_a_number_out_of_range_is_refused(number: object) -> None:
    with pytest.raises(InvalidParameter, match="X-Upscale-Denoise must be a number from 0 to 1"):
        read(x_upscale_denoise=number)


def test_two_values_are_refused() -> None:
    for values, fields in ((["0.5", "0.5"], {}), (["0.5"], {"x_upscale_denoise": 0.52})):
        with pytest.raises(InvalidParameter, match="X-Upscale-Denoise must be sent once"):
            read(*values, **fields)


def place_both(service: Service) -> None:
    for name in (NAME, PARTNER):
        place_file(service.settings.models_dir, name)


@pytest.fixture
def service(make_service: MakeService) -> Service:
    service = make_service(IdleExecutor(), metering=True, credits=5, reuse_results=True)
    place_both(service)
    return service


def upload(service: Service, changes: dict[str, str], **data: str) -> Any:
    headers = service.headers | AT_HALF | changes
    return service.upload(headers=headers, data={"scale": "2"} | data)


def test_the_answer_names_the_model_and_the_strength_that_made_it(service: Service) -> None:
    answer = upload(service, {"X-Upscale-Denoise": "0.43"})
    assert answer.headers["X-Upscale-Model"] == NAME
    assert answer.headers["X-Upscale-Denoise"] == "0.4"
    assert service.executor.requests[0].model == f"{NAME}@0.4"
    by_field = service.upload(
        data={"scale": "2", "x_upscale_model": NAME, "x_upscale_denoise": "0.4"}
    )
    assert by_field.headers["X-Upscale-Denoise"] == "0.4"
    assert by_field.headers["X-Upscale-Reused"] == "true"
    other = upload(service, {})
    assert "X-Upscale-Reused" not in other.headers
    plain = service.upload(headers=service.headers | {"X-Upscale-Model": NAME})
    assert "X-Upscale-Reused" not in plain.headers
    assert "X-Upscale-Denoise" not in plain.headers


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"X-Upscale-Model": "auto"}, "auto has no strength of denoising"),
        ({"X-Upscale-Model": "upscaled-x2"}, "upscaled-x2 has no strength of denoising"),
        ({"X-Upscale-Model": f"{NAME}@0.5"}, "X-Upscale-Model must be auto or the name"),
        ({"X-Upscale-Denoise": "1.1"}, "X-Upscale-Denoise must be a number"),
    ],
)
def test_a_strength_that_cannot_be_made_is_refused_and_not_charged(
    service: Service, changes: dict[str, str], text: str
) -> None:
    answer = upload(service, changes)
    assert_error(answer, 400, "invalid_parameter")
    assert text in answer.json()["error"]
    assert (service.balance(), service.stored_files()) == (5, [])


def test_missing_partner_weights_are_reported_for_every_kind_of_request(
    make_service: MakeService,
) -> None:
    service = make_service(IdleExecutor(), metering=True, credits=5)
    place_file(service.settings.models_dir, NAME)
    for kind in ({}, {"Prefer": "respond-async"}, {"X-Upscale-Dry-Run": "true"}):
        answer = upload(service, kind)
        assert_error(answer, 400, "invalid_parameter")
        assert PARTNER in answer.json()["error"]
    assert (service.balance(), service.executor.requests) == (5, [])


def test_a_dry_run_and_a_job_name_the_strength(service: Service) -> None:
    estimate = upload(service, {"X-Upscale-Dry-Run": "true"}).json()
    assert (estimate["models"], estimate["denoise"]) == ([NAME], 0.5)
    accepted = upload(service, {"Prefer": "respond-async"})
    assert accepted.status_code == 202
    job: dict[str, Any] = accepted.json()
    assert (job["model"], job["denoise"]) == (NAME, 0.5)

    def ended() -> bool:
        job.update(service.get(f"/v1/jobs/{job['id']}", headers=service.headers).json())
        return bool(job["status"] == "succeeded")

    wait_until(ended)
    assert (job["model"], job["denoise"]) == (NAME, 0.5)
    assert [work.model for work in service.executor.requests] == [f"{NAME}@0.5"]


def test_a_repeated_request_has_its_answer_and_one_of_another_strength_is_refused(
    service: Service,
) -> None:
    named = {"Idempotency-Key": "denoised-once"}
    first, again = upload(service, named), upload(service, named | {"X-Upscale-Denoise": "0.50"})
    assert again.headers["Idempotent-Replayed"] == "true"
    for answer in (first, again):
        assert (answer.headers["X-Upscale-Model"], answer.headers["X-Upscale-Denoise"]) == (
            NAME,
            "0.5",
        )
    assert first.json() == again.json()
    assert_error(upload(service, named | {"X-Upscale-Denoise": "0.6"}), 400, "invalid_parameter")
    assert service.balance() == 4
