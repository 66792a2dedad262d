"""A replica without Ray, over fake workers."""

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from tests.service.pool.pools import fake_command, order, picture, until
from tests.service.pool.pools import request as job_request
from upscaled.pool.executor import ModelStats, StoreOrder
from upscaled.pool.messages import Alive, Done, Failed, JobProgress, JobRefused, WorkerJob, encode
from upscaled.pool.ray_serve import replica as module
from upscaled.pool.ray_serve.messages import (
    Busy,
    DeviceFaultMessage,
    ReplicaMessage,
    ReplicaReport,
    decode_from_replica,
)
from upscaled.pool.ray_serve.replica import UpscaleReplica

BATCHING_WORKER = Path(__file__).with_name("batching_worker.py")

REFUSED_WITHIN_S = 60.0
"""All 26; a quiet machine needs a few hundredths of a second."""

JOB = encode(WorkerJob(job=0, request=job_request()))


@pytest.fixture(params=[(1, 1)])
async def replica(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[UpscaleReplica]:
    """One with the slots, the length of the queue, and the devices that the parameter says."""
    slots, queue, *devices = request.param
    for name in [name for name in os.environ if name.startswith("UPSCALED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPSCALED_JOBS_PER_WORKER", str(slots))
    monkeypatch.setenv("UPSCALED_MAX_QUEUE", str(queue))
    monkeypatch.setenv("UPSCALED_DEVICE", ",".join(devices))
    monkeypatch.setattr(module, "hide_memory", lambda: None)  # of the process of all tests
    monkeypatch.setattr(module, "configure_logging", lambda *_: None)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    replica = UpscaleReplica(fake_command())
    await replica.check_health()
    yield replica
    await replica.stop()


async def answers(replica: UpscaleReplica, source: bytes) -> list[tuple[ReplicaMessage, bytes]]:
    return [
        (decode_from_replica(header), payload)
        async for header, payload in replica.upscale(JOB, source)
    ]


async def test_it_answers_at_once_and_then_with_the_result(replica: UpscaleReplica) -> None:
    (first, _), *_, (last, data) = await answers(replica, order("echo") + b"abc")
    assert isinstance(first, Alive)
    assert isinstance(last, Done)
    assert data.endswith(b"abc")


async def test_a_replica_sends_alive_every_second(replica: UpscaleReplica) -> None:
    messages = await answers(replica, order("answer", after_s=2.5))
    assert sum(isinstance(message, Alive) for message, _ in messages) >= 3


async def test_it_reports_tiles_to_the_last_but_not_each(
    replica: UpscaleReplica, tmp_path: Path
) -> None:
    trace = str(tmp_path / "trace")
    messages = await answers(replica, order("tiles", count=100, tile_s=0.01, trace=trace))
    tiles = [message.done for message, _ in messages if isinstance(message, JobProgress)]
    assert tiles[-1] == 100
    assert tiles == sorted(tiles)
    assert len(tiles) < 60


@pytest.mark.parametrize(
    ("what", "kind"),
    [({"do": "refuse"}, JobRefused), ({"do": "fail"}, DeviceFaultMessage), ({"do": "die"}, Failed)],
    ids=["refused", "failed", "killed its workers"],
)
async def test_errors_cross_as_messages(
    replica: UpscaleReplica, what: dict[str, str], kind: type[ReplicaMessage]
) -> None:
    *_, (last, data) = await answers(replica, order(**what))
    assert isinstance(last, kind)
    assert not data


async def test_after_a_fault_of_its_device_the_call_stays_open_until_the_front_end_ends_it(
    replica: UpscaleReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_S", 1000.0)
    call = replica.upscale(JOB, order("fail"))
    while not isinstance(decode_from_replica((await anext(call))[0]), DeviceFaultMessage):
        pass
    following = asyncio.ensure_future(anext(call))
    await until(lambda: replica._pool.stats().running == 0)
    ended, _ = await asyncio.wait((following,), timeout=0.1)
    assert not ended
    following.cancel()
    await asyncio.wait((following,))
    await call.aclose()


async def test_what_does_not_fit_its_queue_is_refused_in_one_message(
    replica: UpscaleReplica,
) -> None:
    slow = order("answer", after_s=20)
    working = [asyncio.create_task(answers(replica, slow)) for _ in range(2)]
    await until(lambda: replica._pool.stats().waiting == 1)
    ((only, _),) = await answers(replica, slow)
    assert isinstance(only, Busy)
    assert (only.reason, only.retry_after_s >= 1) == ("queue", True)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)


@pytest.mark.parametrize("replica", [(4, 10)], indirect=True)
async def test_of_forty_images_it_accepts_what_fits_refuses_the_rest_and_is_free_once_all_leave(
    replica: UpscaleReplica, tmp_path: Path
) -> None:
    slow = order("tiles", count=10_000, tile_s=0.05, trace=str(tmp_path / "trace"))
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    sending = [asyncio.create_task(answers(replica, slow)) for _ in range(40)]
    refused = [await each for each in islice(asyncio.as_completed(sending), 26)]
    assert loop.time() - started_s < REFUSED_WITHIN_S
    assert all(isinstance(only, Busy) for ((only, _),) in refused)
    stats = replica._pool.stats()
    assert (stats.running, stats.waiting) == (4, 10)
    assert sum(each.done() for each in sending) == 26
    for each in sending:
        each.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    await until(lambda: (replica._pool.stats().running, replica._pool.stats().waiting) == (0, 0))


async def test_a_call_that_is_closed_cancels_the_work(
    replica: UpscaleReplica, tmp_path: Path
) -> None:
    source = order("tiles", count=10_000, tile_s=0.02, trace=str(tmp_path / "trace"))
    call = replica.upscale(JOB, source)
    await anext(call)
    await until(lambda: replica._pool.stats().running == 1)
    await call.aclose()
    await until(lambda: replica._pool.stats().running == 0)


@pytest.mark.parametrize("replica", [(1, 1, "cpu", "cpu")], indirect=True)
async def test_its_workers_are_tied_to_their_parts_of_the_cores(replica: UpscaleReplica) -> None:
    report = ReplicaReport.model_validate_json(await replica.report())
    assert report.workers_wanted == 2
    assert report.ready.device.startswith("cpu:")


@pytest.mark.slow
async def test_small_pictures_of_two_front_ends_share_batches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each picture is one window, so a batch of two has one of each front end's.

    A third one keeps the device busy meanwhile with pictures for another model.
    """
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")
    monkeypatch.setenv("UPSCALED_AUTO_BUDGET_S", "0")
    monkeypatch.setenv("UPSCALED_DEVICE", "cpu")
    monkeypatch.setattr(module, "hide_memory", lambda: None)
    monkeypatch.setattr(module, "configure_logging", lambda *_: None)
    replica = UpscaleReplica((sys.executable, str(BATCHING_WORKER)))
    try:
        await replica.check_health()

        async def front_end(key_id: int, side_px: int, scale: int) -> None:
            source = picture(side_px)
            request = job_request(width_px=side_px, height_px=side_px, key_id=key_id, scale=scale)
            job = encode(WorkerJob(job=0, request=request))
            while not await _has_batched(replica):
                *_, (header, _) = [answer async for answer in replica.upscale(job, source)]
                assert isinstance(decode_from_replica(header), Done)

        async with asyncio.timeout(60):
            await asyncio.gather(front_end(1, 64, 4), front_end(2, 64, 4), front_end(3, 300, 2))
    finally:
        await replica.stop()


async def _has_batched(replica: UpscaleReplica) -> bool:
    report = ReplicaReport.model_validate_json(await replica.report())
    done = report.done.models.get(report.ready.models[4], ModelStats())
    return done.windows > done.batches


async def test_a_report_has_the_models_and_the_load_of_a_replica(replica: UpscaleReplica) -> None:
    report = ReplicaReport.model_validate_json(await replica.report())
    assert report.accepts
    assert (report.workers_ready, report.running_most, report.waiting_most) == (1, 1, 1)
    assert report.ready.models == {2: "fake", 4: "fake"}
    assert len(report.hashes["upscaled-x4"]) == 64


async def test_it_is_unhealthy_once_it_had_no_worker_for_long(
    replica: UpscaleReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HOPELESS_AFTER_S", 0.0)
    await replica.check_health()
    await replica._pool.stop(0)
    with pytest.raises(RuntimeError, match="no worker"):
        await replica.check_health()


def test_a_replica_ends_with_its_parent() -> None:
    """As where a raylet is killed: the child of a shell that ends is left to another parent."""
    inner = (
        "import asyncio; from upscaled.pool.ray_serve.replica import end_with_parent\n"
        "async def watch():\n"
        "    watching = asyncio.create_task(end_with_parent())\n"
        "    await asyncio.sleep(0)\n"
        "    print('watching', flush=True)\n"
        "    await watching\n"
        "asyncio.run(watch()); print('went on')"
    )
    command = f'{sys.executable} -c "{inner}" & read line; kill -9 $$'
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", command], stdin=pipe, stdout=pipe, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "watching\n"
        rest, _ = shell.communicate("\n", timeout=60)
    assert rest == ""


async def test_a_result_stored_by_the_replica_is_returned_without_its_bytes(
    replica: UpscaleReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself: `test_result_store.py`."""
    asked: list[tuple[StoreOrder, bytes, str]] = []

    async def put(store: StoreOrder, data: bytes, media_type: str, *, waited_s: float) -> int:
        asked.append((store, data, media_type))
        return len(data)

    monkeypatch.setattr(replica._results, "put", put)
    store = StoreOrder("s3://bucket", "", "name.png", within_s=60)
    job = encode(WorkerJob(job=0, request=dataclasses.replace(job_request(), store=store)))
    for sent, is_stored in ((JOB, False), (job, True)):
        *_, (header, data) = [each async for each in replica.upscale(sent, order("echo") + b"abc")]
        last = decode_from_replica(header)
        assert isinstance(last, Done)
        assert last.result.stored_as == ("name.png" if is_stored else "")
        assert last.result.stored_bytes == (len(asked[0][1]) if is_stored else 0)
        assert data.endswith(b"abc") != is_stored
    [(given, made, _)] = asked
    assert given == store
    assert made.endswith(b"abc")
