"""The service with its results in a bucket: the same answers, and the contract's when it fails."""

import asyncio
from dataclasses import replace

import pytest
import requests

from tests.buckets import Bucket, Fault, FaultyBucket, answers_within
from tests.service.api.answers import assert_error
from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api import readiness
from upscaled.pool.executor import UpscaleRequest
from upscaled.state.errors import HoldReleased
from upscaled.upscale.result import Result

pytest.importorskip("obstore", reason="obstore is not installed")


def get(url: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, url, headers=headers, allow_redirects=False, timeout=30)


@pytest.mark.parametrize(("mode", "media_type"), [("RGB", "image/jpeg"), ("RGBA", "image/png")])
def test_every_front_end_serves_a_result_from_the_bucket_as_from_its_folder(
    make_service: MakeService, bucket: Bucket, mode: str, media_type: str
) -> None:
    storing, other = make_service(**bucket.settings), make_service(**bucket.settings)
    in_folder = make_service()
    url = storing.upload(picture(mode=mode)).json()["result_url"]
    name = url.rpartition("/")[2]
    assert storing.stored_files() == []
    assert bucket.list_keys() == [f"results/{name}"]
    from_folder = in_folder.upload(picture(mode=mode)).json()["result_url"]
    varying = {"x-request-id", "date"}
    for method in ("GET", "HEAD"):
        expected = get(from_folder, method)
        for service in (storing, other):
            answer = get(f"{service.url}/public/result/{name}", method, Range="bytes=0-9")
            assert answer.status_code == 200
            assert answer.content == expected.content
            assert answer.headers["Content-Type"] == media_type
            same = [{k: v for k, v in each.headers.items() if k.lower() not in varying}
                    for each in (answer, expected)]  # fmt: skip
            assert same[0] == same[1]


def test_a_result_in_the_bucket_is_not_found_after_its_time(
    make_service: MakeService, bucket: Bucket
) -> None:
    now = [1_800_000_000.0]
    service = make_service(clock=lambda: now[0], **bucket.settings)
    url = service.upload().json()["result_url"]
    now[0] += 3599
    assert get(url).status_code == get(url, "HEAD").status_code == 200
    now[0] += 1.01
    assert_error(get(url), 404, "not_found")
    assert get(url, "HEAD").status_code == 404
    assert service.state.sweep().results.removed == 1
    assert bucket.list_keys() == []


def test_a_result_in_the_bucket_is_a_source(make_service: MakeService, bucket: Bucket) -> None:
    service = make_service(**bucket.settings)
    url = service.upload().json()["result_url"]
    answer = service.send_json(
        {"image_url": url, "scale": 2}, headers=service.headers | {"Accept": "image/*"}
    )
    assert answer.status_code == 200
    assert size_of(answer.content) == (320, 256)


def test_a_result_in_the_bucket_that_is_too_large_is_no_source(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(max_file_bytes=2000, **bucket.settings)
    for size_bytes, code in ((2000, "malformed_image"), (2001, "file_size_too_large")):
        name = asyncio.run(service.state.results.store(b"\xff" * size_bytes, "image/jpeg"))
        url = f"http://elsewhere.example/public/result/{name}"
        answer = service.send_json({"image_url": url, "scale": 2})
        assert answer.json()["error_code"] in (code, "unsupported_image_format")
        assert (answer.json()["error_code"] == "file_size_too_large") == (size_bytes == 2001)


@pytest.mark.parametrize("fault", ["busy", "cut", "silent"])
def test_a_bucket_that_fails_is_500_at_no_cost_until_it_works_again(
    make_service: MakeService, faulty_bucket: FaultyBucket, fault: Fault
) -> None:
    bucket = faulty_bucket.bucket
    with answers_within(0.6 if fault == "silent" else 10):
        service = make_service(metering=True, credits=3, **bucket.settings)
        url = service.upload().json()["result_url"]
        assert service.balance() == 2
        faulty_bucket.fail(fault)
        again = {"image_url": url, "scale": 2}
        for answer in (service.upload(), get(url), service.send_json(again)):
            assert_error(answer, 500, "internal_error")
            assert answer.json()["error"] == "Internal service error"
    assert service.balance() == 2
    assert service.state.credits.audit() == ()
    image = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert image.status_code == 200  # it needs no bucket
    faulty_bucket.fail(None)
    assert get(url).status_code == 200
    assert service.upload().status_code == 200
    assert service.balance() == 0
    assert len(bucket.list_keys()) == 2


def test_half_a_picture_is_not_found_and_a_retry_makes_it_anew_at_no_cost(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(metering=True, credits=1, **bucket.settings)
    headers = service.headers | {"Idempotency-Key": "once"}
    url = service.upload(headers=headers).json()["result_url"]
    data = get(url).content
    (key,) = bucket.list_keys()
    bucket.damage(key, data[: len(data) // 2])
    assert_error(get(url), 404, "not_found")
    assert get(url, "HEAD").status_code == 404
    again = service.upload(headers=headers)
    assert again.status_code == 200
    assert get(again.json()["result_url"]).content == data
    assert service.balance() == 0


def test_a_damaged_picture_is_not_sent_and_a_retry_makes_it_anew_at_no_cost(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(metering=True, credits=1, **bucket.settings)
    headers = service.headers | {"Idempotency-Key": "once", "Accept": "image/*"}
    data = service.upload(headers=headers).content
    (key,) = bucket.list_keys()
    bucket.damage(key, bytes(len(data)))
    assert_error(service.upload(headers=headers), 409, "request_in_progress")
    again = service.upload(headers=headers)
    assert (again.status_code, again.content) == (200, data)
    assert service.balance() == 0


def test_a_damaged_picture_is_not_used_again(make_service: MakeService, bucket: Bucket) -> None:
    service = make_service(reuse_results=True, **bucket.settings)
    headers = service.headers | {"Accept": "image/*"}
    data = service.upload(headers=headers).content
    (key,) = bucket.list_keys()
    bucket.damage(key, bytes(len(data)))
    for is_reused in (False, True):
        answer = service.upload(headers=headers)
        assert (answer.status_code, answer.content) == (200, data)
        assert ("X-Upscale-Reused" in answer.headers) == is_reused


def test_readiness_follows_the_bucket(
    make_service: MakeService,
    faulty_bucket: FaultyBucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(readiness, "PROBE_EVERY_S", 0.05)
    service = make_service(**faulty_bucket.bucket.settings)
    wait_for_status(service, 200)
    faulty_bucket.fail("cut")
    wait_for_status(service, 503)
    # A check that is slow is trouble by itself, and the next one says what it is.
    cause = f"not ready: {faulty_bucket.bucket.url}: cannot store a result: "
    wait_until(lambda: cause in caplog.text)
    assert service.get("/readyz").status_code == 503
    faulty_bucket.fail(None)
    wait_for_status(service, 200)


def wait_for_status(service: Service, status: int) -> None:
    wait_until(lambda: service.get("/readyz").status_code == status)


def test_a_bucket_that_is_missing_makes_the_service_unready_from_its_start(
    make_service: MakeService, bucket: Bucket
) -> None:
    missing = replace(bucket, name="no-such-bucket")
    service = make_service(**missing.settings)
    assert_error(service.upload(), 500, "internal_error")
    assert service.get("/readyz").status_code == 503


def test_figures_of_what_is_kept_are_unknown_with_a_bucket(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(**bucket.settings)
    service.app.state.context.metrics.note_sweep(service.state.sweep())
    text = service.get("/metrics").text
    assert "upscaled_results_kept NaN" in text
    assert "upscaled_results_kept_bytes NaN" in text


class Replicas(ResizingExecutor):
    """Stores results itself where a request says so, as replicas of a cluster do."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__()
        self.bucket = bucket

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        result = await super().upscale(source, request)
        if request.store is None:
            return result
        assert (request.store.url, request.store.endpoint) == (self.bucket.url, self.bucket.server)
        self.bucket.put(f"results/{request.store.file_name}", result.data)
        name, size_bytes = request.store.file_name, len(result.data)
        return replace(result, data=b"", stored_as=name, stored_bytes=size_bytes)


def test_what_a_replica_has_stored_is_served_as_what_the_front_end_stores(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(Replicas(bucket), metering=True, credits=2, **bucket.settings)
    image = service.upload(headers=service.headers | {"Accept": "image/*"})
    url = service.upload().json()["result_url"]
    assert bucket.list_keys() == [f"results/{url.rpartition('/')[2]}"]
    assert get(url).content == image.content
    assert get(url).headers["Content-Type"] == image.headers["Content-Type"]
    assert [each.store is None for each in service.executor.requests] == [True, False]
    assert service.balance() == 0
    metrics = service.get("/metrics").text
    size_bytes = len(image.content)
    assert f"upscaled_result_bytes_total {float(2 * size_bytes)}" in metrics


def test_what_a_replica_has_stored_is_deleted_where_it_cannot_be_paid_for(
    make_service: MakeService, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(Replicas(bucket), metering=True, credits=1, **bucket.settings)

    def refuse(*_: object) -> None:
        raise HoldReleased("given back meanwhile")

    monkeypatch.setattr(type(service.state.credits), "capture", refuse)
    assert_error(service.upload(), 500, "internal_error")
    assert bucket.list_keys() == []
    assert service.balance() == 1


def test_an_idempotency_key_replays_what_a_replica_has_stored(
    make_service: MakeService, bucket: Bucket
) -> None:
    service = make_service(Replicas(bucket), metering=True, credits=2, **bucket.settings)
    headers = service.headers | {"Idempotency-Key": "stored-by-a-replica"}
    first, second = (service.upload(headers=headers).json() for _ in range(2))
    assert first == second
    assert service.balance() == 1
