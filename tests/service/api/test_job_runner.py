"""The runner of jobs: what fails around a job costs neither the job nor the requests beside it."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from tests.service.api.executors import FIGURES, ResizingExecutor
from tests.service.api.serving import MakeService, Service, serve
from tests.service.api.waiting import wait_until
from upscaled.api import job_runner
from upscaled.errors import InternalError
from upscaled.pool.executor import PoolStats, UpscaleRequest
from upscaled.state import DatabaseFailed
from upscaled.state.schema import JOBS
from upscaled.upscale.result import Result

ASYNC = {"Prefer": "respond-async"}


class CountingExecutor(ResizingExecutor):
    """Works when the test says so; its figures are true."""

    def __init__(self, slots: int = 2) -> None:
        super().__init__()
        self.slots, self.running = slots, 0
        self.may_go_on = threading.Event()

    def stats(self) -> PoolStats:
        return replace(FIGURES, waiting=0, running=self.running, running_most=self.slots)

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.running += 1
        try:
            while not self.may_go_on.is_set():
                await asyncio.sleep(0.01)
            return await super().upscale(source, request)
        finally:
            self.running -= 1


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "POLL_EVERY_S", 0.05)
    monkeypatch.setattr(job_runner, "RETRY_AFTER_S", 0.1)
    monkeypatch.setattr(job_runner, "STORE_RETRY_AFTER_S", 0.2)


@pytest.fixture
def executor() -> CountingExecutor:
    return CountingExecutor()


@pytest.fixture
def service(make_service: MakeService, executor: CountingExecutor) -> Service:
    return make_service(executor, metering=True, credits=9)


def submit(service: Service) -> str:
    answer = service.upload(headers=service.headers | ASYNC)
    assert answer.status_code == 202
    return str(answer.json()["id"])


def status_of(service: Service, job_id: str) -> str:
    return str(service.get(f"/v1/jobs/{job_id}", headers=service.headers).json()["status"])


def wait_for(service: Service, job_id: str, status: str) -> None:
    wait_until(lambda: status_of(service, job_id) == status, 20)


def call(service: Service, step: Any) -> None:
    """Run a coroutine on the service's own loop."""
    loop = service.app.state.context.job_runner._wake._loop
    asyncio.run_coroutine_threadsafe(step, loop).result(60)


async def wait_for_the_runner() -> None:
    """Wait until a runner that was closed looks for jobs no more."""
    tasks = [each for each in asyncio.all_tasks() if "JobRunner.run_forever" in repr(each)]
    await asyncio.gather(*tasks)


def attempts_of(service: Service) -> list[int]:
    with service.state.database.read() as connection:
        return list(connection.execute(sa.select(JOBS.c.attempts)).scalars())


def test_a_runner_that_is_closed_puts_its_jobs_back_and_claims_no_more(
    service: Service, executor: CountingExecutor
) -> None:
    executor.slots = 1  # else a claim that is under way may take the first again, for a moment
    first = submit(service)
    wait_until(lambda: executor.running == 1, 20)
    call(service, service.app.state.context.job_runner.close())
    assert status_of(service, first) == "queued"
    assert attempts_of(service) == [0]
    second = submit(service)
    executor.may_go_on.set()
    assert service.upload().status_code == 200
    assert status_of(service, second) == "queued"


def test_a_job_that_is_claimed_while_the_runner_closes_is_put_back(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_claimed, may_return = threading.Event(), threading.Event()
    claim = type(service.state.jobs).claim

    def claim_slowly(self: Any, *arguments: Any) -> Any:
        claimed = claim(self, *arguments)
        if claimed is not None:
            has_claimed.set()
            may_return.wait(60)
        return claimed

    monkeypatch.setattr("upscaled.state.jobs.Jobs.claim", claim_slowly)
    job = submit(service)
    assert has_claimed.wait(60)
    call(service, service.app.state.context.job_runner.close())
    may_return.set()
    wait_for(service, job, "queued")
    assert attempts_of(service) == [0]


def test_a_runner_that_is_closed_while_it_ends_unwanted_jobs_claims_none(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_looking, may_return = threading.Event(), threading.Event()
    end_unwanted = type(service.state.jobs).end_unwanted

    def end_slowly(self: Any) -> Any:
        if executor.running:
            is_looking.set()
            may_return.wait(60)
        return end_unwanted(self)

    monkeypatch.setattr("upscaled.state.jobs.Jobs.end_unwanted", end_slowly)
    job = submit(service)
    assert is_looking.wait(60)
    call(service, service.app.state.context.job_runner.close())
    assert status_of(service, job) == "queued"
    claims: list[object] = []
    monkeypatch.setattr("upscaled.state.jobs.Jobs.claim", lambda *call: claims.append(call))
    may_return.set()
    call(service, wait_for_the_runner())
    assert claims == []


@pytest.mark.parametrize("store", ["job_results.store", "job_sources.read"])
def test_jobs_wait_for_a_store_that_does_not_work(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    executor.may_go_on.set()
    name, _, step = store.partition(".")
    failed = threading.Event()

    async def fail(*_: object) -> None:
        failed.set()
        raise InternalError(detail="the disk does not work")

    with monkeypatch.context() as broken:
        broken.setattr(type(getattr(service.state, name)), f"{step}", fail)
        jobs = [submit(service) for _ in range(3)]
        assert failed.wait(60)
        assert {status_of(service, job) for job in jobs} <= {"queued", "running"}
    for job in jobs:
        wait_for(service, job, "succeeded")
    assert service.balance() == 6


def test_a_job_without_its_source_fails_and_is_not_charged(
    service: Service, executor: CountingExecutor
) -> None:
    service.app.state.context.job_runner._paused_until_s = float("inf")
    job = submit(service)
    for path in (service.settings.data_dir / "job-sources").iterdir():
        path.unlink()
    service.app.state.context.job_runner._paused_until_s = 0.0
    wait_for(service, job, "failed")
    assert service.balance() == 9


def test_the_runner_continues_after_any_failure_of_a_claim(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.may_go_on.set()
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise RuntimeError("no such table")

    with monkeypatch.context() as broken:
        broken.setattr("upscaled.state.jobs.Jobs.claim", fail)
        job = submit(service)
        assert tried.wait(60)
    wait_for(service, job, "succeeded")


def test_jobs_that_still_read_their_source_count_for_the_slots(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read = threading.Event()
    reading: list[str] = []
    read = type(service.state.job_sources).read

    async def read_slowly(self: Any, name: str) -> bytes | None:
        reading.append(name)
        await asyncio.to_thread(may_read.wait, 20)
        return await read(self, name)

    monkeypatch.setattr(type(service.state.job_sources), "read", read_slowly)
    jobs = [submit(service) for _ in range(5)]
    wait_until(lambda: len(reading) == 2)
    assert service.get("/v1/jobs?status=running", headers=service.headers).json()["jobs"][1:]
    assert len(reading) == executor.slots == 2
    may_read.set()
    executor.may_go_on.set()
    for job in jobs:
        wait_for(service, job, "succeeded")


def test_a_job_that_is_claimed_again_here_runs_once(
    service: Service, executor: CountingExecutor
) -> None:
    job = submit(service)
    wait_until(lambda: executor.running == 1)
    with service.state.database.write() as connection:  # as after an outage longer than a lease
        connection.execute(sa.update(JOBS).values(lease_until_s=0.0))
    wait_until(lambda: attempts_of(service) == [2])
    wait_until(lambda: executor.running == 1)
    executor.may_go_on.set()
    wait_for(service, job, "succeeded")
    assert service.balance() == 8
    assert len(list((service.settings.data_dir / "job-results").rglob("*.jpg"))) == 1


def test_a_job_keeps_its_source_where_its_commit_is_in_doubt(
    service: Service, executor: CountingExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_job = type(service.state.jobs).submit

    def commit_and_lose_the_answer(*arguments: Any, **options: Any) -> None:
        submit_job(*arguments, **options)
        raise DatabaseFailed("the connection was lost", is_connection_lost=True)

    with monkeypatch.context() as broken:
        broken.setattr("upscaled.state.jobs.Jobs.submit", commit_and_lose_the_answer)
        assert service.upload(headers=service.headers | ASYNC).status_code == 500
    executor.may_go_on.set()
    (job,) = service.get("/v1/jobs", headers=service.headers).json()["jobs"]
    wait_for(service, job["id"], "succeeded")


@pytest.mark.parametrize(("step", "status"), [("finish", "succeeded"), ("fail", "failed")])
def test_the_end_of_a_job_is_recorded_when_the_database_is_back(
    service: Service,
    executor: CountingExecutor,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    status: str,
) -> None:
    """Else it would be worked on once more, when its lease has run out."""
    record = getattr(type(service.state.jobs), step)
    tried: list[str] = []

    def lose_twice(*arguments: Any, **options: Any) -> object:
        tried.append(step)
        if len(tried) <= 2:
            raise DatabaseFailed("the connection is lost", is_connection_lost=True)
        return record(*arguments, **options)

    async def fail(*_: object) -> Result:
        raise InternalError(detail="no")

    monkeypatch.setattr("upscaled.api.billing.RETRIES_AFTER_S", (0, 0, 0, 0))
    monkeypatch.setattr(f"upscaled.state.jobs.Jobs.{step}", lose_twice)
    if status == "failed":
        monkeypatch.setattr(ResizingExecutor, "upscale", fail)
    executor.may_go_on.set()
    wait_for(service, submit(service), status)
    assert tried == [step] * 3
    assert attempts_of(service) == [1]


def test_jobs_that_no_attempt_ended_are_counted_and_logged_with_their_keys_name(
    service: Service, executor: CountingExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "upscaled.api.job_work")
    service.app.state.context.job_runner._paused_until_s = float("inf")
    job = submit(service)
    service.state.keys.revoke("test")
    service.app.state.context.job_runner._paused_until_s = 0.0
    counted = 'upscaled_jobs_total{status="cancelled"} 1.0'
    wait_until(lambda: counted in service.get("/metrics").text.splitlines())
    assert 'upscaled_credits_total{event="released"} 1.0' in service.get("/metrics").text
    (ended,) = (record for record in caplog.records if record.message == "a job ended")
    fields = {"job_id": job, "key_name": "test", "error_code": None}
    assert (vars(ended)["event"], vars(ended)["fields"]) == ("job_cancelled", fields)
    assert list((service.settings.data_dir / "job-sources").iterdir()) == []


@pytest.mark.parametrize("job_id", ["x", "%00", "%ED%A0%80", "0" * 5000, "1.5", "-1"])
def test_an_id_that_no_job_can_have_is_not_found(service: Service, job_id: str) -> None:
    for method in ("GET", "DELETE"):
        url = f"{service.url}/v1/jobs/{job_id}"
        answer = requests.request(method, url, headers=service.headers, timeout=60)
        assert answer.status_code == 404


def test_front_ends_with_folders_of_their_own_say_so_and_fail_no_job_of_each_other(
    server_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first_executor, second_executor = CountingExecutor(), CountingExecutor()
    first_executor.slots = 0
    second_executor.may_go_on.set()
    first_executor.may_go_on.set()
    with (
        serve(tmp_path / "a", first_executor, database_url=server_url) as first,
        serve(tmp_path / "b", second_executor, key=first.key, database_url=server_url) as second,
    ):
        wait_until(lambda: first.get("/readyz").status_code == 200)
        wait_until(lambda: second.get("/readyz").status_code == 200)
        job_id = submit(first)
        wait_until(lambda: "the source of a job is in another front end's folder" in caplog.text)
        assert status_of(second, job_id) in ("queued", "running")
        first_executor.slots = 2
        wait_for(second, job_id, "succeeded")
    events = [getattr(each, "event", "") for each in caplog.records]
    assert events.count("results_not_shared") == 1
