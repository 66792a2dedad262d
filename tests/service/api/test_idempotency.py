"""`Idempotency-Key` over a real socket: the first answer again, and one charge."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from tests.service.api.answers import assert_error
from tests.service.api.executors import FIGURES, FailingExecutor, LargeExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from upscaled.api.memory import build_budget
from upscaled.errors import InternalError
from upscaled.pool.executor import UpscaleRequest
from upscaled.state.schema import IDEMPOTENCY_KEYS
from upscaled.upscale.result import Result


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service(metering=True, credits=5)


def send(service: Service, name: str = "order-17", **changes: Any) -> requests.Response:
    headers = service.headers | {"Idempotency-Key": name} | changes.pop("headers", {})
    return service.upload(changes.pop("image", None), headers=headers, **changes)


def made(service: Service) -> int:
    return len(service.executor.requests)


def test_a_url_is_answered_again_and_charged_once(service: Service) -> None:
    first, second = send(service), send(service)
    assert first.status_code == second.status_code == 200
    assert second.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    for name in ("Server-Timing", "X-Upscale-Model", "Content-Type"):
        assert second.headers[name] == first.headers[name]
    assert (service.balance(), made(service)) == (4, 1)


def test_an_image_is_answered_again_byte_for_byte(service: Service) -> None:
    image: dict[str, Any] = {"headers": {"Accept": "image/*"}, "image": picture(mode="RGBA")}
    first, second = send(service, **image), send(service, **image)
    assert second.content == first.content
    assert first.headers["Content-Type"] == second.headers["Content-Type"] == "image/png"
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (service.balance(), made(service)) == (4, 1)


def test_a_result_larger_than_the_memory_for_images_is_answered_again(
    make_service: MakeService,
) -> None:
    service = make_service(LargeExecutor(), max_file_bytes=1_000_000, max_queue=1)
    assert build_budget(service.settings).limit_bytes < LargeExecutor.size_bytes
    first, second = (send(service, headers={"Accept": "image/*"}) for _ in range(2))
    assert first.content == second.content == bytes(LargeExecutor.size_bytes)
    assert second.headers["Content-Length"] == str(LargeExecutor.size_bytes)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert made(service) == 1


def test_without_the_header_each_request_is_made_and_charged(service: Service) -> None:
    for _ in range(2):
        assert "Idempotent-Replayed" not in service.upload().headers
    assert (service.balance(), made(service)) == (3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": picture(81, 64)},
        {"data": {"scale": "4"}},
        {"headers": {"Accept": "image/*"}},
        {"headers": {"Prefer": "respond-async"}},
    ],
)
def test_another_request_under_the_same_name_is_refused(
    service: Service, changes: dict[str, Any]
) -> None:
    assert send(service).status_code == 200
    text = assert_error(send(service, **changes), 400, "invalid_parameter")
    assert "Idempotency-Key" in text
    assert service.balance() == 4


@pytest.mark.parametrize("name", ["x", "x" * 255, "a b/c~"])
def test_a_name_of_printable_characters_is_accepted(service: Service, name: str) -> None:
    assert send(service, name).status_code == 200


@pytest.mark.parametrize("name", ["", "x" * 256, "caf\xe9", "a\tb"])
def test_any_other_name_is_refused(service: Service, name: str) -> None:
    headers = {"Idempotency-Key": name.encode("latin-1")}
    assert_error(send(service, headers=headers), 400, "invalid_parameter")
    assert service.balance() == 5


class SlowExecutor(ResizingExecutor):
    """Begins, and continues when the test sets an event."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.has_begun.set()
        await asyncio.to_thread(self.may_go_on.wait, 20)
        return await super().upscale(source, request)


def test_an_early_retry_is_answered_with_retry_after(make_service: MakeService) -> None:
    executor = SlowExecutor()
    service = make_service(executor, metering=True, credits=5)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(send, service)
        assert executor.has_begun.wait(60)
        refused = send(service)
        assert_error(refused, 409, "request_in_progress")
        assert int(refused.headers["Retry-After"]) >= 1
        executor.may_go_on.set()
        assert first.result().status_code == 200
    assert send(service).json() == first.result().json()
    assert service.balance() == 4


def test_a_request_that_failed_is_made_anew(make_service: MakeService) -> None:
    executor = FailingExecutor(InternalError(detail="broken"))
    service = make_service(executor, metering=True, credits=5)
    assert_error(send(service), 500, "internal_error")
    assert service.balance() == 5
    executor.upscale = ResizingExecutor().upscale  # type: ignore[method-assign]
    assert send(service).status_code == 200
    assert service.balance() == 4


def test_an_expired_result_is_made_again_uncharged_under_a_new_url(
    make_service: MakeService,
) -> None:
    service = make_service(metering=True, credits=5)
    first = send(service)
    for path in service.settings.results_dir.rglob("*.jpg"):
        path.unlink()
    second = send(service)
    assert second.status_code == 200
    assert second.json() != first.json()
    assert "Idempotent-Replayed" not in second.headers
    assert requests.get(second.json()["result_url"], timeout=60).status_code == 200
    assert send(service).json() == second.json()
    assert (service.balance(), made(service)) == (4, 2)
    assert service.state.credits.audit() == ()


def test_a_retry_after_a_front_end_crashed_has_the_charged_result(service: Service) -> None:
    first = send(service)
    with service.state.database.write() as connection:  # it died before it noted the answer
        connection.execute(sa.update(IDEMPOTENCY_KEYS).values(answer=None, lease_until_s=0.0))
    second = send(service)
    assert second.json() == first.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (service.balance(), made(service)) == (4, 1)


def test_without_metering_too_an_answer_is_replayed(make_service: MakeService) -> None:
    service = make_service()
    assert send(service).json() == send(service).json()
    assert made(service) == 1


def test_a_job_that_is_submitted_twice_is_one_job(make_service: MakeService) -> None:
    executor = ResizingExecutor()
    executor.stats = lambda: replace(FIGURES, waiting=1)  # type: ignore[method-assign]
    service = make_service(executor, metering=True, credits=5)
    prefer: dict[str, Any] = {"headers": {"Prefer": "respond-async"}}
    first, second = send(service, **prefer), send(service, **prefer)
    assert first.status_code == second.status_code == 202
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert service.balance() == 4
    assert len(list((service.settings.data_dir / "job-sources").iterdir())) == 1


def test_a_replay_counts_no_image(service: Service) -> None:
    for _ in range(3):
        send(service)
    counted = [
        line
        for line in service.get("/metrics").text.splitlines()
        if line.startswith("upscaled_images_total{") and not line.endswith(" 0.0")
    ]
    assert counted == ['upscaled_images_total{model="resize",scale="2",tempered_with=""} 1.0']
