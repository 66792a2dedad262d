"""Results in a bucket: whole or absent, valid to the moment, whatever the server does."""

import asyncio
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.buckets import ACCESS_KEY, Bucket, Fault, FaultyBucket, answers_within
from tests.service.state.conftest import Clock, all_of
from upscaled.api.cancellation import run_to_end
from upscaled.bucket.checksum import DamagedObject
from upscaled.bucket.client import describe_bucket_error
from upscaled.errors import InternalError
from upscaled.state.clocks import Clocks, StampClock
from upscaled.state.folder_results import FolderResults

obstore = pytest.importorskip("obstore", reason="obstore is not installed")

from upscaled.state import bucket_results  # noqa: E402
from upscaled.state.bucket_results import BucketResults, make_name, read_creation_s  # noqa: E402

TTL_S = 3600
V4 = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d.jpg"

OpenBucket = Callable[[Bucket], BucketResults]


@pytest.fixture
def open_bucket(tmp_path: Path, clock: Clock) -> OpenBucket:
    """A store of a bucket, as each front end opens its own."""

    def open_one(bucket: Bucket) -> BucketResults:
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        earlier = FolderResults(folder, TTL_S, StampClock(all_of(clock)))
        return BucketResults(bucket.url, bucket.endpoint, earlier)

    return open_one


@pytest.fixture
def results(open_bucket: OpenBucket, bucket: Bucket) -> BucketResults:
    return open_bucket(bucket)


async def read(results: BucketResults, name: str) -> bytes | None:
    async with results.open(name) as opened:
        return b"".join([chunk async for chunk in opened.chunks]) if opened else None


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [("image/jpeg", "jpg"), ("image/png", "png"), ("image/webp", "webp"), ("image/avif", "avif")],
)
async def test_another_front_end_finds_a_result_as_it_was_stored(
    open_bucket: OpenBucket, bucket: Bucket, media_type: str, extension: str
) -> None:
    data = os.urandom(700_000)
    name = await open_bucket(bucket).store(data, media_type)
    other = open_bucket(bucket)
    found = await other.find(name)
    assert found is not None
    assert (found.media_type, found.size_bytes) == (media_type, 700_000)
    assert await read(other, name) == data
    assert uuid.UUID(name.removesuffix(f".{extension}")).version == 4
    assert bucket.list_keys() == [f"results/{name}"]
    headers = bucket.head(f"results/{name}").headers
    assert headers["Content-Type"] == media_type
    assert headers["Cache-Control"] == "private, no-store"


async def test_a_bucket_may_hold_results_without_a_prefix(
    open_bucket: OpenBucket, bucket: Bucket
) -> None:
    results = open_bucket(Bucket(bucket.server, bucket.endpoint, f"{bucket.name}", ""))
    name = await results.store(b"x", "image/png")
    assert bucket.list_keys() == [name]
    assert await read(results, name) == b"x"


async def test_validity_ends_to_the_moment_without_a_sweep(
    results: BucketResults, clock: Clock
) -> None:
    name = await results.store(b"x", "image/jpeg")
    clock.now_s += TTL_S - 0.01
    assert await read(results, name) == b"x"
    clock.now_s += 0.01
    assert await results.find(name) is None
    assert await read(results, name) is None
    assert results.sweep().removed == 1


async def test_a_deleted_result_is_not_found_and_may_be_deleted_again(
    results: BucketResults, bucket: Bucket
) -> None:
    name = await results.store(b"x", "image/jpeg")
    for _ in range(2):
        await results.delete(name)
    assert await results.find(name) is None
    assert await read(results, name) is None
    assert bucket.list_keys() == []


async def test_any_other_name_finds_and_deletes_nothing(
    results: BucketResults, bucket: Bucket, clock: Clock
) -> None:
    name = await results.store(b"x", "image/jpeg")
    bucket.put("secret.jpg", b"secret")
    bucket.put(f"results/{V4}", b"x")
    unknown = make_name(clock.now_s, "image/jpeg")
    for other in (
        *("", ".", "..", "x", "../secret.jpg", "secret.jpg", f"../results/{name}", f"/{name}"),
        *(name.replace(".jpg", ".png"), name.upper(), f"{name}\n", f" {name}", f"{name}/"),
        *(name.removesuffix(".jpg"), f"{name}?x", f"results/{name}", V4, unknown, "x" * 100_000),
    ):
        assert await results.find(other) is None
        assert await read(results, other) is None
        await results.delete(other)
    assert sorted(bucket.list_keys()) == sorted([f"results/{name}", f"results/{V4}", "secret.jpg"])


async def test_results_of_the_folder_are_kept_until_they_expire(
    results: BucketResults, tmp_path: Path, clock: Clock
) -> None:
    folder = FolderResults(tmp_path / "results", TTL_S, StampClock(all_of(clock)))
    old, undelivered = await folder.store(b"old", "image/png"), await folder.store(b"", "image/png")
    assert await results.find(old) == await folder.find(old)
    assert await read(results, old) == b"old"
    await results.delete(undelivered)
    assert await folder.find(undelivered) is None
    clock.now_s += TTL_S
    assert await results.find(old) is None
    assert results.sweep().removed == 1


async def test_an_undelivered_result_of_the_folder_is_removed_although_its_name_may_be_an_old_time(
    results: BucketResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: f"00{V4[2:].removesuffix('.jpg')}")
    folder = FolderResults(tmp_path / "results", TTL_S, results.clock)
    name = await folder.store(b"x", "image/jpeg")
    await results.delete(name)
    assert await folder.find(name) is None


async def test_results_that_version_0_2_0_named_are_kept_until_they_expire(
    results: BucketResults, bucket: Bucket, clock: Clock
) -> None:
    """Their names are UUIDs of version 7."""
    name = make_name(clock.now_s, "image/jpeg")
    name = f"{name[:14]}7{name[15:]}"
    bucket.put(f"results/{name}", b"x")
    assert await read(results, name) == b"x"
    clock.now_s += TTL_S
    assert await results.find(name) is None
    assert results.sweep().removed == 1


async def test_a_sweep_removes_every_expired_result_and_nothing_else(
    open_bucket: OpenBucket, bucket: Bucket, clock: Clock
) -> None:
    results = open_bucket(bucket)
    for _ in range(12):
        await results.store(b"old", "image/png")
    clock.now_s += TTL_S / 2
    live = [await results.store(b"live", "image/jpeg") for _ in range(5)]
    foreign = ["0000/notes.txt", "results/0-first", f"results/{V4}", "results/zz"]
    for key in foreign:
        bucket.put(key, b"")
    assert results.sweep().removed == 0
    clock.now_s += TTL_S / 2
    at_once = [asyncio.to_thread(open_bucket(bucket).sweep) for _ in range(2)]
    swept = [each.removed for each in await asyncio.gather(*at_once)]
    assert max(swept) == 12
    assert sorted(bucket.list_keys()) == sorted([*foreign, *(f"results/{name}" for name in live)])
    assert results.sweep().removed == 0


async def test_a_sweep_lists_no_further_than_the_first_valid_result(
    results: BucketResults, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    list_objects = obstore.list

    def count(*arguments: Any, **options: Any) -> Iterator[Any]:
        for page in list_objects(*arguments, **options):
            listed.append(len(page))
            yield page

    monkeypatch.setattr(bucket_results, "LISTED_AT_ONCE", 4)
    monkeypatch.setattr(obstore, "list", count)
    for _ in range(6):
        await results.store(b"old", "image/png")
        clock.now_s += 0.001
    clock.now_s += TTL_S
    for _ in range(20):
        await results.store(b"live", "image/png")
    assert results.sweep().removed == 6
    assert listed == [4, 4]


async def test_a_cancelled_call_leaves_no_object(results: BucketResults, bucket: Bucket) -> None:
    begun = asyncio.Event()

    async def store() -> str:
        begun.set()
        return await results.store(os.urandom(3_000_000), "image/png")

    task = asyncio.create_task(run_to_end(store(), results.delete))
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bucket.list_keys() == []


FLAWS: list[list[Fault]] = [["busy", "busy"], ["cut"], ["answer lost"]]


@pytest.mark.parametrize("faults", FLAWS)
async def test_a_result_is_stored_once_although_requests_fail(
    open_bucket: OpenBucket, faulty_bucket: FaultyBucket, faults: list[Fault]
) -> None:
    results = open_bucket(faulty_bucket.bucket)
    faulty_bucket.fail_next(*faults)
    name = await results.store(b"x" * 1000, "image/png")
    assert faulty_bucket.proxy.faults == []
    assert faulty_bucket.bucket.list_keys() == [f"results/{name}"]


@pytest.mark.parametrize("fault", ["busy", "cut"])
async def test_a_result_is_found_and_deleted_although_requests_fail(
    open_bucket: OpenBucket, faulty_bucket: FaultyBucket, fault: Fault
) -> None:
    name = await open_bucket(faulty_bucket.bucket).store(b"x" * 1000, "image/png")
    faulty_bucket.fail_next(fault)
    assert await open_bucket(faulty_bucket.bucket).find(name) is not None
    faulty_bucket.fail_next(fault)
    assert await read(open_bucket(faulty_bucket.bucket), name) == b"x" * 1000
    faulty_bucket.fail_next(fault)
    await open_bucket(faulty_bucket.bucket).delete(name)
    assert faulty_bucket.bucket.list_keys() == []


async def test_a_result_is_read_whole_although_its_connection_breaks(
    open_bucket: OpenBucket, faulty_bucket: FaultyBucket
) -> None:
    data = os.urandom(3_500_000)
    name = await open_bucket(faulty_bucket.bucket).store(data, "image/png")
    faulty_bucket.fail_next("cut while reading", "cut while reading")
    assert await read(open_bucket(faulty_bucket.bucket), name) == data
    assert faulty_bucket.proxy.faults == []


@pytest.mark.parametrize("kept_bytes", [0, 1, 699_999, 700_001])
async def test_a_result_of_another_length_than_was_stored_is_not_found(
    results: BucketResults, bucket: Bucket, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(700_000)
    name = await results.store(data, "image/png")
    bucket.damage(f"results/{name}", (data + b"x")[:kept_bytes])
    assert await results.find(name) is None
    assert await read(results, name) is None
    assert caplog.text.count("a result in the bucket is not what was stored") == 2
    assert name not in caplog.text


@pytest.mark.parametrize("size_bytes", [1, 500_000])
async def test_a_small_result_of_another_checksum_is_not_found_and_then_gone(
    results: BucketResults, bucket: Bucket, size_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    name = await results.store(b"x" * size_bytes, "image/png")
    assert await read(results, name) == b"x" * size_bytes
    bucket.damage(f"results/{name}", b"x" * (size_bytes - 1) + b"y")
    assert await read(results, name) is None
    assert "is not what was stored" in caplog.text
    assert bucket.list_keys() == []


async def test_a_large_result_of_another_checksum_is_never_read_to_its_end_and_then_gone(
    results: BucketResults, bucket: Bucket
) -> None:
    data = os.urandom(700_000)
    name = await results.store(data, "image/png")
    bucket.damage(f"results/{name}", data[:-1] + bytes([data[-1] ^ 1]))
    chunks: list[bytes] = []

    async def read_on() -> None:
        async with results.open(name) as opened:
            assert opened is not None
            async for chunk in opened.chunks:
                chunks.append(chunk)

    with pytest.raises(DamagedObject):
        await read_on()
    assert sum(map(len, chunks)) < len(data)
    assert await results.find(name) is None
    assert bucket.list_keys() == []


async def test_a_result_stored_by_an_earlier_version_is_read_without_a_check(
    results: BucketResults, bucket: Bucket, clock: Clock
) -> None:
    name = make_name(clock.now_s, "image/png")
    bucket.put(f"results/{name}", b"of 0.2.0")
    assert await results.find(name) is not None
    assert await read(results, name) == b"of 0.2.0"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("silent", "no answer in time"),
        ("busy", "the bucket answered 503 Service Unavailable"),
        ("cut", "the connection broke off"),
    ],
)
async def test_a_bucket_that_fails_is_an_internal_error_of_every_call(
    open_bucket: OpenBucket,
    faulty_bucket: FaultyBucket,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    reason: str,
) -> None:
    name = await open_bucket(faulty_bucket.bucket).store(b"x", "image/png")
    with answers_within(0.4 if fault == "silent" else 10):
        results = open_bucket(faulty_bucket.bucket)
        faulty_bucket.fail(fault)
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(results.store, b"x", "image/png"),
            partial(results.find, name),
            partial(read, results, name),
            lambda: asyncio.to_thread(results.sweep),
            lambda: asyncio.to_thread(results.try_out),
        )
        for call in calls:
            with pytest.raises(InternalError) as refused:
                await call()
            assert refused.value.public_text == "Internal service error"
            assert reason in refused.value.detail
        await results.delete(name)
    assert reason in caplog.text
    faulty_bucket.fail(None)
    assert await read(results, name) == b"x"


async def test_a_bucket_that_is_down_or_missing_is_an_internal_error(
    open_bucket: OpenBucket, bucket: Bucket
) -> None:
    for endpoint, name, reason in (
        ("http://127.0.0.1:1", bucket.name, "cannot store a result: no connection"),
        (bucket.server, "no-such", "the bucket answered 404 Not Found NoSuchBucket"),
    ):
        results = open_bucket(Bucket(bucket.server, endpoint, name))
        with pytest.raises(InternalError, match=reason):
            await results.store(b"x", "image/png")
        with pytest.raises(InternalError, match=reason):
            results.try_out()


async def test_a_large_result_is_streamed_in_bounded_memory(
    results: BucketResults, bucket: Bucket, clock: Clock
) -> None:
    """The client reads slowly meanwhile, so that the bucket could run ahead of it."""
    name, size_bytes = make_name(clock.now_s, "image/png"), 96 * 2**20
    bucket.put(f"results/{name}", bytes(size_bytes))
    process, read_bytes = psutil.Process(), 0
    before_bytes = most_bytes = process.memory_info().rss
    async with results.open(name) as opened:
        assert opened is not None
        async for chunk in opened.chunks:
            read_bytes += len(chunk)
            await asyncio.sleep(0.002)
            most_bytes = max(most_bytes, process.memory_info().rss)
    assert read_bytes == size_bytes
    assert most_bytes - before_bytes < 24 * 2**20


def test_a_trial_leaves_no_object_and_a_server_that_keeps_objects_passes(
    results: BucketResults, bucket: Bucket
) -> None:
    results.try_out()
    assert not results.overwrites()
    assert bucket.list_keys() == []


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1))
def test_names_sort_by_age_and_hold_their_time(one_ms: int, other_ms: int) -> None:
    one, other = (make_name(each / 1000, "image/png") for each in (one_ms, other_ms))
    assert abs(read_creation_s(one) * 1000 - one_ms) < 1.5  # seconds are no whole binary fraction
    assert one_ms == other_ms or (one < other) == (one_ms < other_ms) or abs(one_ms - other_ms) < 2
    assert uuid.UUID(one.removesuffix(".png")).version == 4


def test_names_of_one_moment_differ_in_74_random_bits() -> None:
    names = [make_name(1_800_000_000, "image/png").removesuffix(".png") for _ in range(2000)]
    numbers = [uuid.UUID(name).int for name in names]
    varying = 0
    for number in numbers:
        varying |= number ^ numbers[0]
    assert len(set(numbers)) == 2000
    assert varying.bit_count() == 74


def test_no_error_quotes_a_name_or_an_access_key() -> None:
    name = make_name(1_800_000_000, "image/png")
    quoted = (
        f"Error performing PUT https://s3.example.com/bucket/results/{name} in 5ms - Server "
        "returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>"
        f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>AWS4 {name}</StringToSign>"
    )
    reason = describe_bucket_error(quoted)
    assert reason == "the bucket answered 403 Forbidden SignatureDoesNotMatch"
    assert describe_bucket_error(f"GET {name} {ACCESS_KEY}") == "the request failed"
    assert not re.search(f"{name[:13]}|{ACCESS_KEY}", reason)


def test_missing_credentials_are_named() -> None:
    quoted = "Error performing PUT http://169.254.169.254/latest/api/token in 1ms - ..."
    assert describe_bucket_error(quoted).startswith("no credentials: ")


@pytest.mark.parametrize(("ttl_s", "ahead_s"), [(TTL_S, 120.0), (100, 5.0)])
async def test_a_reserved_name_expires_no_earlier_than_a_result_stored_at_once(
    bucket: Bucket, tmp_path: Path, clock: Clock, ttl_s: int, ahead_s: float
) -> None:
    earlier = FolderResults(tmp_path, ttl_s, StampClock(all_of(clock)))
    results = BucketResults(bucket.url, bucket.endpoint, earlier)
    file_name, within_s = results.reserve("image/png")
    assert within_s == ahead_s / 2
    assert await results.find(file_name) is None
    bucket.put(f"results/{file_name}", b"picture")
    clock.now_s += ttl_s + ahead_s - 0.01
    found = await results.find(file_name)
    assert found is not None
    assert (found.media_type, found.size_bytes) == ("image/png", 7)
    clock.now_s += 0.02
    assert await results.find(file_name) is None
    assert results.sweep().removed == 1


async def test_a_reserved_name_is_valid_although_the_clock_was_set_back_by_more_than_a_lifetime(
    bucket: Bucket, tmp_path: Path, clock: Clock
) -> None:
    clocks = Clocks(wall=clock, boot=lambda: 0.0, running=lambda: 0.0)
    results = BucketResults(
        bucket.url, bucket.endpoint, FolderResults(tmp_path, TTL_S, StampClock(clocks))
    )
    clock.now_s -= 2 * TTL_S
    file_name, _ = results.reserve("image/png")
    bucket.put(f"results/{file_name}", b"picture")
    assert results.sweep().removed == 0
    assert await read(results, file_name) == b"picture"
