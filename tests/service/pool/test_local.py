"""Messages to and from a worker, with processes that obey their job."""

import asyncio
import gc
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.garbage import Traced, leaving_none
from tests.service.pool.pools import (
    QUICK,
    order,
    pids_of,
    request,
    running_pool,
    send,
    until,
    workers_of,
)
from upscaled.errors import InternalError, MalformedImage
from upscaled.pool.executor import OnTile, UpscaleRequest
from upscaled.pool.messages import MAX_RESULT_BYTES, Answer, WorkerJob
from upscaled.pool.worker_process import WorkerProcess


async def test_the_largest_input_and_a_huge_result_cross() -> None:
    source = order("answer", size_bytes=100_000_000) + bytes(25_000_000)
    async with running_pool() as pool:
        upscaled = await pool.upscale(source, request())
    assert len(upscaled.data) == 100_000_000


async def test_the_pieces_of_a_result_and_what_follows_them_are_its_file() -> None:
    async with running_pool() as pool:
        upscaled = await pool.upscale(order("pieces", offsets=[0, 3, 6]), request())
    assert upscaled.data == b"000111222x"


async def test_a_result_that_is_begun_anew_drops_the_pieces_before() -> None:
    async with running_pool() as pool:
        upscaled = await pool.upscale(order("pieces", offsets=[0, 3, 0]), request())
    assert upscaled.data == b"222x"


@pytest.mark.parametrize("offsets", [[3], [0, 2], [0, 4], [0, MAX_RESULT_BYTES]])
async def test_a_worker_whose_pieces_do_not_follow_each_other_is_replaced(
    offsets: list[int],
) -> None:
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        with pytest.raises(InternalError, match="died"):
            await pool.upscale(order("pieces", offsets=offsets), request())
        await pool.upscale(order("answer"), request())
        assert workers_of(pool) != [worker]


async def test_the_pieces_of_a_worker_that_died_are_no_part_of_the_next_ones_result(
    tmp_path: Path,
) -> None:
    work = order("pieces", offsets=[0, 3], marker=str(tmp_path / "died"))
    async with running_pool(workers=1) as pool:
        upscaled = await pool.upscale(work, request())
    assert (tmp_path / "died").exists()
    assert upscaled.data == b"000111x"


async def test_pieces_of_a_cancelled_image_are_taken_and_leave_the_worker_at_work(
    tmp_path: Path,
) -> None:
    may_end = tmp_path / "may end"
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        running = send(pool, order("pieces", offsets=[0, 3], until=str(may_end)))
        await asyncio.sleep(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        may_end.touch()
        upscaled = await pool.upscale(order("pieces", offsets=[0]), request())
        assert upscaled.data == b"000x"
        assert workers_of(pool) == [worker]


async def test_a_refusal_is_the_same_error_on_this_side() -> None:
    async with running_pool() as pool:
        with pytest.raises(MalformedImage) as caught:
            await pool.upscale(order("refuse"), request())
    assert caught.value.public_text == "No image"


async def test_an_exception_in_a_job_is_internal_and_is_not_retried() -> None:
    async with running_pool() as pool:
        [worker] = workers_of(pool)
        with pytest.raises(InternalError, match="ZeroDivisionError") as caught:
            await pool.upscale(order("fail"), request())
        assert workers_of(pool) == [worker]
    assert caught.value.public_text == "Internal service error"


async def test_cancelling_a_request_that_waits_frees_its_slot_in_the_queue_at_once(
    tmp_path: Path,
) -> None:
    may_end = tmp_path / "may end"
    async with running_pool(workers=1, jobs_per_worker=1, max_queue=1) as pool:
        running = send(pool, order("answer", until=str(may_end)))
        waiting = send(pool, order("die"), request("cancelled"))
        await asyncio.sleep(0.05)
        assert pool.stats().waiting == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert pool.stats().waiting == 0
        [worker] = workers_of(pool)
        last = send(pool, order("answer"))
        may_end.touch()
        await asyncio.gather(running, last)
        assert workers_of(pool) == [worker]  # so the cancelled job never ran


def count_tiles(trace: Path) -> int:
    """Return how many tiles a fake worker has noted in its trace."""
    return trace.read_text().count("\n") if trace.exists() else 0


async def test_cancelling_stops_the_work_at_the_next_tile(tmp_path: Path) -> None:
    trace, may_go_on = tmp_path / "trace", tmp_path / "may go on"
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        gates = {"3": str(may_go_on)}
        running = send(pool, order("tiles", count=500, tile_s=0, trace=str(trace), gates=gates))
        await until(lambda: count_tiles(trace) == 3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await pool.upscale(order("answer"), request())  # the worker reads this after the other
        may_go_on.touch()
        await until(lambda: pool.stats().running == 0)
        assert count_tiles(trace) <= 4
        assert workers_of(pool) == [worker]


async def test_a_death_under_a_cancelled_image_leaves_no_error_that_asyncio_would_log() -> None:
    unretrieved: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: unretrieved.append(context))
    async with running_pool() as pool:
        [worker] = workers_of(pool)
        running = send(pool, order("answer", after_s=60))
        await until(lambda: pool.stats().running == 1)
        worker.suspend()  # so that it dies before it takes note of the cancellation
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        worker.kill()
        await until(lambda: pids_of(pool) not in ((), (worker.pid,)))
    gc.collect()
    assert unretrieved == []


@pytest.mark.parametrize(
    ("ordered", "work_s"),
    [(order("die"), 20), (order("nonsense"), 20), (order("answer", after_s=60), 0.5)],
    ids=["dies", "breaks the protocol", "takes too long"],
)
async def test_an_image_under_which_workers_end_is_forgotten_without_a_collection(
    ordered: bytes, work_s: float
) -> None:
    async with running_pool(limits=replace(QUICK, work_s=work_s)) as pool:
        with leaving_none():
            with suppress(InternalError):
                await pool.upscale(Traced(ordered), request())
            await asyncio.sleep(0)


async def test_cancelling_while_the_source_is_sent_leaves_the_channel_whole() -> None:
    source = order("echo") + os.urandom(20_000_000)
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        for wait_s in (0, 0.001, 0.002, 0.005):
            upscaling = send(pool, source)
            await asyncio.sleep(wait_s)
            upscaling.cancel()
        upscaled = await pool.upscale(source, request())
        assert upscaled.data == source
        assert type(upscaled.data) is bytes
        assert workers_of(pool) == [worker]


async def test_cancelling_one_image_leaves_its_neighbours_at_work(tmp_path: Path) -> None:
    traces, may_go_on = [tmp_path / str(number) for number in range(3)], tmp_path / "may go on"
    gates = {"3": str(may_go_on)}
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        [worker] = workers_of(pool)
        jobs = [
            send(pool, order("tiles", count=8, tile_s=0, trace=str(trace), gates=gates))
            for trace in traces
        ]
        await until(lambda: [count_tiles(trace) for trace in traces] == [3, 3, 3])
        jobs[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await jobs[1]
        await pool.upscale(order("answer"), request())  # the worker reads this after the other
        may_go_on.touch()
        await asyncio.gather(jobs[0], jobs[2])
        await until(lambda: pool.stats().running == 0)
        assert workers_of(pool) == [worker]
    left, cancelled, right = (count_tiles(trace) for trace in traces)
    assert (left, right) == (8, 8)
    assert cancelled <= 4


async def test_each_image_gets_the_progress_of_its_own_tiles(tmp_path: Path) -> None:
    progress: dict[str, list[tuple[int, int]]] = {"3": [], "5": []}

    def reporting(name: str) -> UpscaleRequest:
        return replace(request(name), on_tile=lambda *step: progress[name].append(step))

    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        await asyncio.gather(
            *(
                pool.upscale(
                    order("tiles", count=int(name), tile_s=0.02, trace=str(tmp_path / name)),
                    reporting(name),
                )
                for name in progress
            )
        )
    for name, steps in progress.items():
        assert steps == [(done, int(name)) for done in range(1, int(name) + 1)]


async def test_a_result_keeps_the_label_and_tempering_that_the_worker_reports() -> None:
    async with running_pool() as pool:
        tempered = await pool.upscale(
            order("answer", tempered_with="faithful", label="fake int8"), request()
        )
        plain = await pool.upscale(order("answer"), request())
    assert (tempered.tempered_with, tempered.label) == ("faithful", "fake int8")
    assert (plain.tempered_with, plain.label) == ("", "fake")


async def test_a_job_has_the_key_and_the_named_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key, so that a worker shares its device between keys, not between images."""
    key_ids = []
    work = WorkerProcess.work

    async def note_and_work(
        worker: WorkerProcess, job: WorkerJob, source: bytes, on_tile: OnTile
    ) -> tuple[Answer, bytes]:
        key_ids.append(job.request.key_id)
        return await work(worker, job, source, on_tile)

    monkeypatch.setattr(WorkerProcess, "work", note_and_work)
    async with running_pool() as pool:
        for key_id in (7, 8):
            named = replace(request(key_id=key_id), model="slow")
            assert (await pool.upscale(order("answer"), named)).model == "slow"
    assert key_ids == [7, 8]
