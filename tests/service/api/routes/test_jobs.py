"""Jobs over a real socket: accepted, run, watched, cancelled, listed, and billed once."""

import asyncio
import base64
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from tests.service.api.answers import assert_error
from tests.service.api.executors import IDLE, FailingExecutor, IdleExecutor, ResizingExecutor
from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import MakeService, Service, run_app, serve
from tests.service.api.waiting import wait_until
from upscaled.api import job_runner
from upscaled.api.app import create_app
from upscaled.errors import InternalError, MalformedImage, RateLimitExceeded, ServiceError
from upscaled.pool.executor import PoolStats, UpscaleRequest
from upscaled.state import open_state
from upscaled.state.job_sources import FolderSources
from upscaled.state.schema import JOBS
from upscaled.upscale.result import Result

ASYNC = {"Prefer": "respond-async"}
JOB_ID = "6f5ab457-6f35-466d-b309-7a95d5b95a70"
ODD_POSITIONS = (
    f'[1e999, "{JOB_ID}"]',
    f'[{10**400}, "{JOB_ID}"]',
    '[1, "\\ud800"]',
    '[1, "x\\u0000"]',
    "[1]",
    "{}",
)


class SteppingExecutor(IdleExecutor):
    """Does one tile of two, then waits until the test lets it go on, or until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.is_cancelled = threading.Event()

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        assert request.on_tile is not None
        request.on_tile(0, 2)
        request.on_tile(1, 2)
        try:
            while not self.may_go_on.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise
        return await super().upscale(source, request)


class FailingIdleExecutor(FailingExecutor):
    def stats(self) -> PoolStats:
        return IDLE


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service(IdleExecutor(), metering=True, credits=5)


@pytest.fixture
def stepping(make_service: MakeService) -> Iterator[Service]:
    executor = SteppingExecutor()
    yield make_service(executor, metering=True, credits=5)
    executor.may_go_on.set()


def submit(service: Service, **changes: Any) -> requests.Response:
    headers = service.headers | ASYNC | changes.pop("headers", {})
    return service.upload(headers=headers, **changes)


def job_of(service: Service, location: str) -> dict[str, Any]:
    answer = service.get(location, headers=service.headers)
    assert answer.status_code == 200
    job: dict[str, Any] = answer.json()
    return job


def wait_for(service: Service, location: str, status: str) -> dict[str, Any]:
    wait_until(lambda: job_of(service, location)["status"] == status, 20)
    return job_of(service, location)


def run(service: Service, **changes: Any) -> dict[str, Any]:
    """A job that was submitted, and has ended."""
    location = submit(service, **changes).headers["Location"]
    wait_until(lambda: job_of(service, location)["ended_at"] is not None, 20)
    return job_of(service, location)


def test_a_job_is_made_as_was_chosen_when_it_was_sent(service: Service) -> None:
    chosen = {"X-Upscale-Format": "webp", "X-Upscale-Quality": "71"}
    url = run(service, headers=chosen)["result_url"]
    answer = requests.get(url, timeout=30)
    assert (url[-5:], answer.headers["Content-Type"]) == (".webp", "image/webp")
    assert answer.content[8:12] == b"WEBP"
    assert service.executor.requests[-1].output.quality == 71


def test_an_accepted_job_has_the_url_of_its_state(service: Service) -> None:
    answer = submit(service, data={"scale": "4"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert uuid.UUID(job["id"]).version == 4
    assert (job["status"], job["scale"], job["result_url"]) == ("queued", 4, None)
    assert "result_url" not in answer.headers


def test_the_result_of_a_job_is_that_of_the_request_and_costs_one_credit(service: Service) -> None:
    job = run(service)
    assert (job["status"], job["error"], job["model"]) == ("succeeded", None, "resize")
    result = requests.get(job["result_url"], timeout=60)
    assert result.headers["Content-Type"] == "image/jpeg"
    assert size_of(result.content) == (160, 128)
    lifetime = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["ended_at"])
    assert lifetime == timedelta(hours=24)
    assert service.balance() == 4
    assert service.state.credits.audit() == ()
    assert service.stored_files() == []  # not among the results of an hour


def test_a_job_by_url_is_fetched_when_it_runs(service: Service) -> None:
    source = service.upload().json()["result_url"]
    answer = service.send_json({"image_url": source, "scale": 2}, headers=service.headers | ASYNC)
    assert answer.status_code == 202
    job = wait_for(service, answer.headers["Location"], "succeeded")
    assert size_of(requests.get(job["result_url"], timeout=60).content) == (320, 256)


@pytest.mark.parametrize(
    "prefer",
    [
        "Respond-Async",
        "wait=10, respond-async",
        "respond-async; x=1",
        "return=minimal,respond-async",
    ],
)
def test_the_preference_is_read_as_http_defines_it(service: Service, prefer: str) -> None:
    assert submit(service, headers={"Prefer": prefer}).status_code == 202


@pytest.mark.parametrize("prefer", ["", "wait=10", "respond-asynchronously", 'x="respond-async"'])
def test_without_the_preference_the_request_is_answered_as_ever(
    service: Service, prefer: str
) -> None:
    answer = submit(service, headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data": {}}, "missing_parameter"),
        ({"data": {"scale": "3"}}, "invalid_parameter"),
        ({"image": b"no picture"}, "malformed_image"),
        ({"image": picture(63, 64)}, "invalid_parameter"),
        ({"image": picture(1501, 64), "data": {"scale": "4"}}, "resolution_too_high"),
    ],
)
def test_a_bad_upload_is_refused_at_once_and_makes_no_job(
    service: Service, changes: dict[str, Any], code: str
) -> None:
    image = changes.pop("image", None)
    headers = service.headers | ASYNC
    assert_error(service.upload(image, headers=headers, **changes), 400, code)
    assert service.balance() == 5
    assert list((service.settings.data_dir / "job-sources").glob("*")) == []


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "order-17"}])
def test_without_credits_no_job_is_accepted_and_no_source_written(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    service = make_service(IdleExecutor(), metering=True, credits=0)
    monkeypatch.setattr(FolderSources, "store", None)  # calling it is an internal error
    assert_error(submit(service, headers=headers), 403, "insufficient_api_credits")


def test_the_credit_is_checked_before_the_picture_as_without_a_job(
    make_service: MakeService,
) -> None:
    service = make_service(IdleExecutor(), metering=True, credits=0)
    for headers in ({}, ASYNC, {"X-Upscale-Dry-Run": "true"}):
        answer = service.upload(b"no picture", headers=service.headers | headers)
        assert_error(answer, 403, "insufficient_api_credits")


def test_a_reused_idempotency_key_is_refused_before_job_limit_credit_and_picture(
    make_service: MakeService,
) -> None:
    named = {"Idempotency-Key": "order-17"}
    service = make_service(ResizingExecutor(), metering=True, credits=1, max_jobs_per_key=1)
    assert submit(service, headers=named).status_code == 202
    refused = submit(service, image=b"no picture", headers=named)
    assert_error(refused, 400, "invalid_parameter")
    assert refused.json()["error"].startswith("Idempotency-Key was used")
    assert_error(submit(service, image=b"no picture"), 429, "rate_limit_exceeded")


def test_a_job_sent_again_needs_no_further_credit(make_service: MakeService) -> None:
    service = make_service(IdleExecutor(), metering=True, credits=1)
    first, second = (submit(service, headers={"Idempotency-Key": "order-17"}) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["id"] == first.json()["id"]
    assert service.balance() == 0


def test_tiles_are_counted_while_a_job_runs(
    stepping: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by the work itself: elsewhere they are as of the last renewal of its lease."""
    monkeypatch.setattr(job_runner, "RENEW_EVERY_S", 60)
    location = submit(stepping).headers["Location"]
    job = wait_for(stepping, location, "running")
    wait_until(lambda: job_of(stepping, location)["tiles_total"] == 2)
    assert job_of(stepping, location)["tiles_done"] == 1
    assert job["ended_at"] is None


def test_the_remaining_time_of_a_running_job_is_estimated(stepping: Service) -> None:
    answer = submit(stepping)
    location = answer.headers["Location"]
    assert answer.json()["remaining_s"] is None
    wait_until(lambda: job_of(stepping, location)["tiles_done"] == 1)
    assert job_of(stepping, location)["remaining_s"] >= 0
    listed = stepping.get("/v1/jobs", headers=stepping.headers).json()["jobs"]
    assert [job["remaining_s"] for job in listed] == [job_of(stepping, location)["remaining_s"]]
    requests.delete(stepping.url + location, headers=stepping.headers, timeout=60)
    assert job_of(stepping, location)["remaining_s"] is None


def test_a_cancelled_job_stops_at_once_and_is_not_charged(
    stepping: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than in this process it stops at the next renewal of its lease."""
    monkeypatch.setattr(job_runner, "RENEW_EVERY_S", 60)
    location = submit(stepping).headers["Location"]
    wait_for(stepping, location, "running")
    assert stepping.balance() == 4
    answer = requests.delete(stepping.url + location, headers=stepping.headers, timeout=60)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    executor = stepping.executor
    assert isinstance(executor, SteppingExecutor)
    assert executor.is_cancelled.wait(60)
    assert stepping.balance() == 5
    again = requests.delete(stepping.url + location, headers=stepping.headers, timeout=60)
    assert again.json() == answer.json()
    sources = stepping.settings.data_dir / "job-sources"
    wait_until(lambda: list(sources.iterdir()) == [])


def test_a_job_that_another_front_end_cancelled_stops_at_the_next_renewal(
    stepping: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "RENEW_EVERY_S", 0.05)
    answer = submit(stepping)
    wait_for(stepping, answer.headers["Location"], "running")
    key = stepping.state.keys.find("test")
    assert key is not None
    stepping.state.jobs.cancel(key.id, answer.json()["id"])
    executor = stepping.executor
    assert isinstance(executor, SteppingExecutor)
    assert executor.is_cancelled.wait(60)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MalformedImage(detail="secret"), "malformed_image"),
        (InternalError(detail="secret"), "internal_error"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
def test_a_failed_job_has_its_error_and_is_not_charged(
    make_service: MakeService, error: Exception, code: str
) -> None:
    service = make_service(FailingIdleExecutor(error), metering=True, credits=1)
    job = run(service)
    expected = error if isinstance(error, ServiceError) else InternalError()
    assert (job["status"], job["result_url"]) == ("failed", None)
    assert job["error"] == {"error": expected.public_text, "error_code": code}
    assert service.balance() == 1


def test_a_job_that_finds_the_queue_full_waits_for_a_slot(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upscaled.api.job_runner.RETRY_AFTER_S", 0.05)
    executor = FailingIdleExecutor(RateLimitExceeded(1, reason="queue"))
    service = make_service(executor)
    location = submit(service).headers["Location"]
    wait_until(lambda: job_of(service, location)["status"] == "queued")
    executor.upscale = IdleExecutor().upscale  # type: ignore[method-assign]
    wait_for(service, location, "succeeded")


def test_requests_precede_jobs(make_service: MakeService) -> None:
    executor = ResizingExecutor()  # one request waits for a slot
    service = make_service(executor)
    location = submit(service).headers["Location"]
    assert service.upload().status_code == 200
    assert job_of(service, location)["status"] == "queued"
    executor.stats = lambda: IDLE  # type: ignore[method-assign]
    wait_for(service, location, "succeeded")


def test_another_keys_job_is_not_found(service: Service) -> None:
    location = submit(service).headers["Location"]
    other = {"X-API-KEY": service.state.keys.create("other")}
    for method in ("GET", "DELETE", "HEAD"):
        answer = requests.request(method, service.url + location, headers=other, timeout=60)
        assert answer.status_code == 404
    assert requests.get(f"{service.url}/v1/jobs", headers=other, timeout=60).json() == {
        "jobs": [],
        "next_cursor": None,
    }
    assert_error(service.get(location), 401, "invalid_auth_token")


def test_jobs_are_listed_page_by_page_and_by_status(stepping: Service) -> None:
    ids = [submit(stepping).json()["id"] for _ in range(3)]
    requests.delete(f"{stepping.url}/v1/jobs/{ids[1]}", headers=stepping.headers, timeout=60)
    first = stepping.get("/v1/jobs?limit=2", headers=stepping.headers).json()
    cursor = first["next_cursor"]
    second = stepping.get(f"/v1/jobs?limit=2&cursor={cursor}", headers=stepping.headers).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert second["next_cursor"] is None
    cancelled = stepping.get("/v1/jobs?status=cancelled", headers=stepping.headers).json()
    assert [job["id"] for job in cancelled["jobs"]] == [ids[1]]


@pytest.mark.parametrize(
    "query",
    [
        "status=done",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=",
        "cursor=x",
        "cursor=WzEsMl0",
        "cursor=%00",
        *("cursor=" + base64.urlsafe_b64encode(text.encode()).decode() for text in ODD_POSITIONS),
    ],
)
def test_a_bad_query_of_the_list_is_refused(service: Service, query: str) -> None:
    answer = service.get(f"/v1/jobs?{query}", headers=service.headers)
    assert_error(answer, 400, "invalid_parameter")


@pytest.mark.parametrize("limit", [1, 100])
def test_the_limits_of_a_page_are_accepted(service: Service, limit: int) -> None:
    assert service.get(f"/v1/jobs?limit={limit}", headers=service.headers).status_code == 200


def test_a_key_has_only_so_many_unfinished_jobs(make_service: MakeService) -> None:
    service = make_service(ResizingExecutor(), max_jobs_per_key=2)
    assert [submit(service).status_code for _ in range(2)] == [202, 202]
    refused = submit(service)
    assert_error(refused, 429, "rate_limit_exceeded")
    assert int(refused.headers["Retry-After"]) >= 1
    other = {"X-API-KEY": service.state.keys.create("other")}
    assert submit(service, headers=other).status_code == 202
    job_id = service.get("/v1/jobs", headers=service.headers).json()["jobs"][0]["id"]
    requests.delete(f"{service.url}/v1/jobs/{job_id}", headers=service.headers, timeout=60)
    assert submit(service).status_code == 202


def test_a_stopped_server_leaves_its_jobs_to_the_next_start(tmp_path: Path) -> None:
    with serve(tmp_path / "data", SteppingExecutor(), metering=True, credits=2) as first:
        location = submit(first).headers["Location"]
        wait_for(first, location, "running")
    executor = IdleExecutor()
    with (
        open_state(first.settings) as state,
        run_app(create_app(first.settings, executor, state)) as port,
    ):
        second = replace(first, state=state, executor=executor, port=port)
        job = wait_for(second, location, "succeeded")
        assert size_of(requests.get(job["result_url"], timeout=60).content) == (160, 128)
        assert state.credits.show("test") == 1
        with state.database.read() as connection:
            assert connection.execute(sa.select(JOBS.c.attempts)).scalar_one() == 1


def test_an_ended_job_is_removed_after_its_lifetime(make_service: MakeService) -> None:
    service = make_service(IdleExecutor(), job_result_lifetime_s=1)
    job = run(service)
    wait_until(lambda: requests.get(job["result_url"], timeout=60).status_code == 404)

    def is_gone() -> bool:
        service.state.sweep()
        path = f"/v1/jobs/{job['id']}"
        return service.get(path, headers=service.headers).status_code == 404

    wait_until(is_gone)
    assert list((service.settings.data_dir / "job-results").rglob("*.jpg")) == []


def test_a_job_counts_as_an_image_and_as_a_job(service: Service) -> None:
    run(service)
    figures = service.get("/metrics").text.splitlines()
    assert 'upscaled_jobs_total{status="succeeded"} 1.0' in figures
    assert 'upscaled_images_total{model="resize",scale="2",tempered_with=""} 1.0' in figures
    assert "upscaled_results_stored_total 1.0" in figures
