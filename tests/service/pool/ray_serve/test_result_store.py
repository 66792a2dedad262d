"""A replica stores results itself, where it and the front end mean the same bucket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import obstore
import pytest

from tests.buckets import SECRET_KEY, Bucket, FaultyBucket
from tests.service.pool.pools import until
from upscaled.bucket.client import ResultUploads
from upscaled.config import load_settings
from upscaled.errors import InternalError
from upscaled.pool.executor import StoreOrder
from upscaled.pool.ray_serve import result_store
from upscaled.pool.ray_serve.result_store import ReplicaResults
from upscaled.state.bucket_results import BucketResults
from upscaled.state.clocks import Clocks, StampClock
from upscaled.state.folder_results import FolderResults

NAME = "0199c0de-0000-7000-8000-000000000000.png"


def order_for(bucket: Bucket) -> StoreOrder:
    return StoreOrder(bucket.url, bucket.endpoint, NAME, within_s=60)


@asynccontextmanager
async def results_in(bucket: Bucket, *, is_tried: bool = True) -> AsyncIterator[ReplicaResults]:
    results = ReplicaResults(load_settings({}, **bucket.settings))
    trying = asyncio.create_task(results.run_forever())
    try:
        if is_tried:
            await until(lambda: results._works)
        yield results
    finally:
        trying.cancel()
        with suppress(asyncio.CancelledError):
            await trying


async def put(results: ReplicaResults, order: StoreOrder, data: bytes) -> int | None:
    return await results.put(order, data, "image/png", waited_s=0)


async def test_a_result_is_stored_under_the_name_that_the_front_end_chose(bucket: Bucket) -> None:
    async with results_in(bucket) as results:
        assert await put(results, order_for(bucket), b"picture") == 7
    assert bucket.list_keys() == [f"results/{NAME}"]
    assert bucket.get(f"results/{NAME}") == b"picture"
    assert bucket.head(f"results/{NAME}").headers["Content-Type"] == "image/png"


async def test_results_of_jobs_are_stored_below_the_same_prefix(bucket: Bucket) -> None:
    order = replace(order_for(bucket), url=f"{bucket.url}/jobs")
    async with results_in(bucket) as results:
        assert await put(results, order, b"picture") == 7
    assert bucket.list_keys() == [f"results/jobs/{NAME}"]


async def test_a_second_attempt_finds_what_the_first_has_stored(bucket: Bucket) -> None:
    async with results_in(bucket) as first, results_in(bucket) as second:
        await put(first, order_for(bucket), b"picture")
        assert await put(second, order_for(bucket), b"picture") == 7
        # By another kind of device: no less the result of the same image.
        assert await put(second, order_for(bucket), b"made otherwise") == 7
    assert bucket.get(f"results/{NAME}") == b"picture"


async def test_an_order_for_another_bucket_or_an_old_one_is_not_carried_out(bucket: Bucket) -> None:
    order = order_for(bucket)
    async with results_in(bucket) as results:
        for other in (
            replace(order, url="s3://another/results"),
            replace(order, url=f"{bucket.url}2"),
            replace(order, endpoint="http://127.0.0.1:1"),
        ):
            assert await put(results, other, b"picture") is None
        assert await results.put(order, b"picture", "image/png", waited_s=60.1) is None
        assert await results.put(order, b"picture", "image/png", waited_s=60.0) == 7
    assert results.trouble == ""


async def test_the_same_bucket_name_at_another_server_is_another_bucket(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_for(bucket)
    results = ReplicaResults(load_settings({}, **{**bucket.settings, "s3_endpoint": ""}))
    results._works = True
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert await put(results, order, b"picture") is None
    assert bucket.list_keys() == []
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.endpoint)
    assert await put(results, order, b"picture") == 7


async def test_a_replica_without_a_bucket_reports_it_and_carries_no_order_out(
    bucket: Bucket,
) -> None:
    results = ReplicaResults(load_settings({}))
    await results.run_forever()
    assert await put(results, order_for(bucket), b"picture") is None
    assert (results.url, results.trouble) == ("", "UPSCALED_RESULTS_URL names no bucket")


async def test_after_a_failure_no_order_is_carried_out_until_a_trial_succeeds(
    faulty_bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(result_store, "TRIED_EVERY_S", 0.05)
    bucket = faulty_bucket.bucket
    async with results_in(bucket) as results:
        faulty_bucket.fail("cut")
        assert await put(results, order_for(bucket), b"picture") is None
        assert results.trouble.startswith("cannot store a result")
        [record, *_] = [each for each in caplog.records if hasattr(each, "event")]
        assert record.event == "result_returned"
        faulty_bucket.fail(None)
        await until(lambda: results._works)
        assert results.trouble == ""
        assert await put(results, order_for(bucket), b"picture") == 7
    assert NAME not in caplog.text
    assert SECRET_KEY not in caplog.text


async def test_what_a_trial_cannot_delete_is_left_to_the_sweep(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> NoReturn:
        raise PermissionError("403 Forbidden")

    uploads = ResultUploads(bucket.url, bucket.endpoint)
    monkeypatch.setattr(obstore, "delete_async", refuse)
    with pytest.raises(InternalError, match="cannot delete"):
        await uploads.try_out()
    assert len(bucket.list_keys()) == 1

    later = StampClock(Clocks(wall=lambda: time.time() + 60))
    results = BucketResults(bucket.url, bucket.endpoint, FolderResults(tmp_path, 30, later))
    assert results.sweep().removed == 1
    assert bucket.list_keys() == []
