"""A front end acts on the messages of replicas, which these tests make up."""

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.service.api.executors import TIMINGS
from tests.service.pool.pools import request, until
from tests.service.pool.ray_serve.reports import report
from upscaled.config import load_settings
from upscaled.errors import InternalError, MalformedImage, RateLimitExceeded
from upscaled.pool.executor import StoreOrder
from upscaled.pool.messages import (
    Alive,
    Done,
    Failed,
    JobProgress,
    JobRefused,
    ToWorker,
    WorkerJob,
    decode_to_worker,
)
from upscaled.pool.ray_serve import calls, executor
from upscaled.pool.ray_serve.executor import MAX_FAULTS, MAX_REPLAYS, RayPool
from upscaled.pool.ray_serve.messages import (
    Busy,
    DeviceFaultMessage,
    NoReplicaFree,
    ReplicaLost,
    ReplicaMessage,
    ReplicaReport,
    frame,
)
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.result import Result

Step = ReplicaMessage | Exception | float
"""A message, an error that is raised, or seconds of silence."""

RESULT = Result(b"", "image/png", 400, 400, "upscaled-x4", "torch float32", TIMINGS)
DONE = Done(job=0, result=RESULT)
ALIVE = Alive()
FOR_EVER_S = 1000.0


class FakeReplicas:
    """`Replicas` that play one script for each call, the last one again and again."""

    def __init__(self, *scripts: list[Step], reports: list[ReplicaReport]) -> None:
        self.scripts = list(scripts)
        self.reporting = reports
        self.calls = 0
        self.cancelled = 0
        self.ended = 0
        self.jobs: list[ToWorker] = []
        self.is_stopped = False

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.is_stopped = True

    async def reports(self) -> list[bytes]:
        if not self.reporting:
            raise ReplicaLost("no replica runs")
        return [each.model_dump_json().encode() for each in self.reporting]

    async def upscale(self, job: bytes, source: bytes) -> AsyncGenerator[tuple[bytes, bytes], None]:
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        self.jobs.append(decode_to_worker(job))
        try:
            for step in script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield frame(step, source if isinstance(step, Done) else b"")
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.ended += 1


@asynccontextmanager
async def pool_of(
    *scripts: list[Step], reports: list[ReplicaReport] | None = None, **values: object
) -> AsyncIterator[tuple[RayPool, FakeReplicas]]:
    replicas = FakeReplicas(*scripts, reports=[report()] if reports is None else reports)
    pool = RayPool(load_settings({}, **values), replicas)
    await pool.start()
    if replicas.reporting:
        await pool.wait_ready()
    try:
        yield pool, replicas
    finally:
        await pool.stop(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits, so that the tests see their ends."""
    monkeypatch.setattr(executor, "_SILENCE_S", 0.2)
    monkeypatch.setattr(executor, "_FIRST_ANSWER_S", 0.3)
    monkeypatch.setattr("upscaled.pool.ray_serve.reports._REPORTS_EVERY_S", 0.02)
    monkeypatch.setattr("upscaled.pool.ray_serve.reports._GONE_AFTER_S", 0.2)


async def test_the_result_has_the_bytes_that_were_sent_beside_it() -> None:
    async with pool_of([ALIVE, DONE]) as (pool, _):
        result = await pool.upscale(b"bytes", request())
    assert result == replace(RESULT, data=b"bytes")


async def test_tiles_are_passed_on() -> None:
    seen: list[tuple[int, int]] = []
    tiles = [JobProgress(job=0, done=done, total=2) for done in range(3)]
    async with pool_of([ALIVE, *tiles, DONE]) as (pool, _):
        work = replace(request(), on_tile=lambda done, total: seen.append((done, total)))
        await pool.upscale(b"", work)
    assert seen == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    "end",
    [
        ReplicaLost("it died"),
        FOR_EVER_S,
        Busy(retry_after_s=9, reason="stopping"),
        Busy(retry_after_s=9, reason="starting"),
    ],
    ids=["died", "silent", "stopping", "without a worker"],
)
async def test_an_image_is_sent_to_another_replica_where_there_is_one(end: Step) -> None:
    async with pool_of([ALIVE, end], [ALIVE, DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
    assert replicas.calls == 2


async def test_a_silent_replica_keeps_its_call_until_it_answers_again() -> None:
    """Ray sends an image to the replica with the fewest calls: else, that would be this one."""
    async with pool_of([ALIVE, 1.0, ALIVE, FOR_EVER_S], [ALIVE, DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
        assert (replicas.calls, replicas.cancelled) == (2, 1)  # the one that had answered
        await until(lambda: replicas.cancelled == 2)


async def test_a_silent_replica_keeps_its_call_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "KEPT_S", 0.5)
    async with pool_of([ALIVE, FOR_EVER_S], [ALIVE, DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
        await until(lambda: replicas.cancelled == 2)


async def test_while_a_replica_is_silent_images_are_sent_again_sooner(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "_AFTER_SILENCE_S", 0.05)
    async with pool_of([ALIVE, FOR_EVER_S], [FOR_EVER_S], [ALIVE, DONE]) as (pool, _):
        await pool.upscale(b"", request())
    waits = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert waits == ["silent for 0.2 s", "silent for 0.05 s"]


async def test_the_call_of_a_silent_replica_ends_with_the_front_end() -> None:
    async with pool_of([ALIVE, FOR_EVER_S], [ALIVE, DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
        assert replicas.cancelled == 1
    assert replicas.cancelled == 2


async def test_an_image_is_sent_again_where_nothing_answers_at_all() -> None:
    async with pool_of([FOR_EVER_S], [ALIVE, DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
    assert replicas.calls == 2


async def test_an_image_is_sent_again_long_before_a_hanging_replica_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "_SILENCE_S", 0.01)
    monkeypatch.setattr(executor, "_FIRST_ANSWER_S", FOR_EVER_S)
    hanging: list[list[Step]] = [[FOR_EVER_S]] * (2 + MAX_REPLAYS)
    async with pool_of(*hanging, [DONE]) as (pool, replicas):
        await pool.upscale(b"", request())
    assert replicas.calls == len(hanging) + 1  # it began on none of them: no replay


async def test_an_image_is_not_resent_without_a_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "_SILENCE_S", 0.01)
    async with pool_of([0.1, DONE], reports=[]) as (pool, replicas):
        await pool.upscale(b"", request())
    assert replicas.calls == 1


async def test_an_image_under_which_replicas_die_is_given_up_at_last() -> None:
    async with pool_of([ALIVE, ReplicaLost("it died")]) as (pool, replicas):
        with pytest.raises(InternalError, match="lost under it"):
            await pool.upscale(b"", request())
    assert replicas.calls == 1 + MAX_REPLAYS


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Failed(job=0, reason="2 workers died while this was their only image"), InternalError),
        (JobRefused(job=0, error_code="malformed_image", public_text="x"), MalformedImage),
        (Busy(retry_after_s=7, reason="queue"), RateLimitExceeded),
        (InternalError(detail="a fault in the replica's program"), InternalError),
    ],
    ids=["poisonous", "malformed", "queue full", "faulty"],
)
async def test_an_image_that_a_replica_answered_is_not_sent_to_another(
    answer: Any, error: Any
) -> None:
    async with pool_of([ALIVE, answer]) as (pool, replicas):
        with pytest.raises(error) as raised:
            await pool.upscale(b"", request())
    assert replicas.calls == 1
    if isinstance(answer, Busy):
        assert raised.value.headers["Retry-After"] == "7"


FAULT = DeviceFaultMessage(replica="a", reason="the device is broken")
FAULT_ELSEWHERE = DeviceFaultMessage(replica="b", reason="the other device is broken")


async def test_an_image_that_a_device_failed_is_made_by_another_replica() -> None:
    scripts: list[list[Step]] = [[ALIVE, FAULT, FOR_EVER_S], [ALIVE, DONE]]
    async with pool_of(*scripts, reports=[report("a"), report("b")]) as (pool, replicas):
        await until(lambda: len(pool._reports.here) == 2)
        assert (await pool.upscale(b"xyz", request())).data == b"xyz"
        # The second call has ended, the first has not: to Ray its replica is busy, not idle.
        assert (replicas.calls, replicas.ended) == (2, 1)
        assert pool.stats().faults == 1
        assert not pool._calls.has_silent
    assert replicas.ended == 2


async def test_a_replica_that_failed_an_image_keeps_the_call_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "KEPT_S", 0.1)
    scripts: list[list[Step]] = [[ALIVE, FAULT, FOR_EVER_S], [ALIVE, DONE]]
    async with pool_of(*scripts, reports=[report("a"), report("b")]) as (pool, replicas):
        await until(lambda: len(pool._reports.here) == 2)
        await pool.upscale(b"", request())
        await until(lambda: replicas.cancelled == 2)


async def test_an_image_that_two_replicas_fail_keeps_neither_of_them_busy() -> None:
    scripts: list[list[Step]] = [
        [ALIVE, FAULT, FOR_EVER_S],
        [ALIVE, FAULT, FOR_EVER_S],
        [ALIVE, FAULT_ELSEWHERE, FOR_EVER_S],
    ]
    async with pool_of(*scripts, reports=[report("a"), report("b")]) as (pool, replicas):
        await until(lambda: len(pool._reports.here) == 2)
        with pytest.raises(InternalError, match="the other device is broken"):
            await pool.upscale(b"", request())
        await until(lambda: not pool._calls._kept)
        assert (replicas.calls, replicas.ended, pool.stats().faults) == (3, 3, 0)


async def test_an_image_that_is_sent_to_the_replica_that_failed_it_is_tried_again() -> None:
    """Ray sends it there while the others have more under way."""
    failing: list[Step] = [ALIVE, FAULT, FOR_EVER_S]
    scripts = [failing] * (MAX_FAULTS - 1)
    async with pool_of(*scripts, [ALIVE, DONE], reports=[report("a"), report("b")]) as (
        pool,
        replicas,
    ):
        await until(lambda: len(pool._reports.here) == 2)
        await pool.upscale(b"", request())
        assert (replicas.calls, replicas.ended) == (MAX_FAULTS, 1)
        assert pool.stats().faults == 1


async def test_a_replica_that_alone_was_sent_an_image_stays_busy() -> None:
    script: list[Step] = [ALIVE, FAULT, FOR_EVER_S]
    async with pool_of(script, reports=[report("a"), report("b")]) as (pool, replicas):
        await until(lambda: len(pool._reports.here) == 2)
        with pytest.raises(InternalError, match="the device is broken"):
            await pool.upscale(b"", request())
        assert (replicas.calls, replicas.ended) == (MAX_FAULTS, 0)


@pytest.mark.parametrize("end", [FAULT, Busy(retry_after_s=9, reason="starting")])
@pytest.mark.parametrize("is_made", [True, False])
async def test_an_image_that_was_tried_again_leaves_no_memory_behind(
    end: Step, *, is_made: bool
) -> None:
    scripts: list[list[Step]] = [[ALIVE, end], [ALIVE, DONE if is_made else end]]
    async with pool_of(*scripts, reports=[report("a"), report("b")]) as (pool, _):
        await until(lambda: len(pool._reports.here) == 2)
        source = bytes(range(100))
        before = sys.getrefcount(source)
        gc.disable()  # which runs whenever it likes
        try:
            with suppress(InternalError, RateLimitExceeded):
                await pool.upscale(source, request())
            await until(lambda: not pool._calls._kept)
            assert sys.getrefcount(source) == before
        finally:
            gc.enable()


async def test_the_only_replica_is_not_sent_again_an_image_that_it_failed() -> None:
    async with pool_of([ALIVE, FAULT, FOR_EVER_S]) as (pool, replicas):
        with pytest.raises(InternalError, match="the device is broken"):
            await pool.upscale(b"", request())
        await until(lambda: replicas.cancelled == 1)
    assert replicas.calls == 1


async def test_a_full_cluster_refuses_with_the_wait_for_what_is_under_way() -> None:
    # A replica's worker takes 0.01 s for a pixel: 100 s for each of two images.
    script: list[list[Step]] = [[ALIVE, FOR_EVER_S], [NoReplicaFree("full")]]
    reports = [report(seconds_per_px=0.01)]
    async with pool_of(*script, reports=reports) as (pool, replicas):
        working = asyncio.create_task(pool.upscale(b"", request()))
        await until(lambda: replicas.calls == 1)
        with pytest.raises(RateLimitExceeded) as raised:
            await pool.upscale(b"", request())
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert raised.value.reason == "queue"
    assert 100 <= raised.value.retry_after_s <= 250


async def test_without_replicas_no_more_wait_than_may() -> None:
    async with pool_of([FOR_EVER_S], reports=[], max_queue=1) as (pool, replicas):
        working = asyncio.create_task(pool.upscale(b"", request()))
        await until(lambda: replicas.calls == 1)
        with pytest.raises(RateLimitExceeded) as raised:
            await pool.upscale(b"", request())
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert raised.value.reason == "starting"


async def test_a_request_that_finds_no_replica_in_time_is_answered_429() -> None:
    async with pool_of([FOR_EVER_S], reports=[]) as (pool, _):
        with pytest.raises(RateLimitExceeded) as raised:
            await pool.upscale(b"", request())
    assert raised.value.reason == "starting"


async def test_a_client_that_leaves_ends_the_call() -> None:
    async with pool_of([ALIVE, FOR_EVER_S]) as (pool, replicas):
        working = asyncio.create_task(pool.upscale(b"", request()))
        await until(lambda: replicas.calls == 1)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert replicas.cancelled == 1
        assert replicas.calls == 1


async def test_it_is_ready_while_a_replica_accepts_images() -> None:
    async with pool_of([DONE]) as (pool, replicas):
        assert pool.is_ready()
        replicas.reporting = [report(accepts=False)]
        await until(lambda: not pool.is_ready())
        replicas.reporting = [report()]
        await until(pool.is_ready)
        replicas.reporting = []
        await until(lambda: not pool.is_ready())
        assert pool.stats().workers_ready == 0


async def test_what_a_replica_has_done_counts_once_while_it_is_gone_and_when_it_is_back() -> None:
    async with pool_of([DONE], reports=[report("a"), report("b")]) as (pool, replicas):
        done = pool.stats().done
        assert done.models
        replicas.reporting = [report("a")]
        await until(lambda: len(pool._reports.here) == 1)
        assert pool.stats().done == done
        replicas.reporting = [report("a"), report("b")]
        await until(lambda: len(pool._reports.here) == 2)
        assert pool.stats().done == done


@pytest.mark.parametrize("other", [{"sha256": "b" * 64}, {"plan": "other ffff"}])
async def test_it_is_not_ready_while_replicas_would_make_different_pictures(
    other: dict[str, Any],
) -> None:
    async with pool_of([DONE], reports=[report("a"), report("b", **other)]) as (pool, replicas):
        assert not pool.is_ready()
        replicas.reporting = [report("a")]
        await until(pool.is_ready)


async def test_images_are_sent_with_the_shared_ladder_whatever_a_replica_would_choose() -> None:
    shared = {4: (Rung(model="upscaled-x4"),)}
    async with pool_of([DONE], reports=[report("a"), report("b", most_px=1)]) as (pool, replicas):
        assert pool.is_ready()
        own = await pool.own_choice()
        assert own.plans == report().ready.plans
        pool.adopt_ladders(shared)
        await pool.upscale(b"", request(scale=4))
    [job] = replicas.jobs
    assert isinstance(job, WorkerJob)
    assert job.request.ladder == shared[4]
    assert pool.stats().ladders == shared


async def test_a_replay_keeps_the_result_name_until_it_is_too_old() -> None:
    store = StoreOrder("s3://bucket", "", "name.png", within_s=1.2)
    lost = ReplicaLost("it died")
    long: list[Step] = [0.1, ALIVE] * 15
    async with pool_of([ALIVE, lost], [ALIVE, *long, lost], [DONE]) as (pool, replicas):
        await pool.upscale(b"", replace(request(), store=store))
    stores = [job.request.store for job in replicas.jobs if isinstance(job, WorkerJob)]
    assert stores == [store, store, None]


async def test_a_replica_cannot_name_another_object_as_the_result() -> None:
    store = StoreOrder("s3://bucket", "", "name.png", within_s=60)
    own = Done(job=0, result=replace(RESULT, stored_as="name.png", stored_bytes=7))
    others = Done(job=0, result=replace(RESULT, stored_as="other.png", stored_bytes=7))
    async with pool_of([own], [others], [own]) as (pool, _):
        stored = await pool.upscale(b"", replace(request(), store=store))
        assert (stored.stored_as, stored.size_bytes) == ("name.png", 7)
        for order in (store, None):  # without one there is nothing to be stored
            with pytest.raises(InternalError, match="not this image's"):
                await pool.upscale(b"", replace(request(), store=order))


async def test_a_result_name_expires_also_while_replicas_are_silent() -> None:
    store = StoreOrder("s3://bucket", "", "name.png", within_s=0.1)
    async with pool_of([FOR_EVER_S], [DONE]) as (pool, replicas):
        await pool.upscale(b"", replace(request(), store=store))
    stores = [job.request.store for job in replicas.jobs if isinstance(job, WorkerJob)]
    assert stores == [store, None]


async def test_the_reason_why_results_pass_through_the_front_end_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubled = report().model_copy(
        update={"results_url": "s3://bucket", "results_trouble": "no keys"}
    )
    async with pool_of([DONE], reports=[troubled], results_url="s3://bucket") as (pool, replicas):
        replicas.reporting = [troubled, report("b")]
        await until(lambda: "b" in pool._reports.here)
    messages = [each.getMessage() for each in caplog.records]
    [warned] = [message for message in messages if "results pass through" in message]
    assert "no keys" in warned


async def test_it_is_not_ready_while_a_replica_is_of_another_version() -> None:
    async with pool_of([DONE]) as (pool, replicas):
        readable = replicas.reports

        async def report_with_another() -> list[bytes]:
            return [*await readable(), b'{"replica": "b", "colour": "blue"}']

        replicas.reports = report_with_another  # type: ignore[method-assign]
        await until(lambda: not pool.is_ready())
        assert (await pool.upscale(b"x", request())).data == b"x"
        replicas.reports = readable  # type: ignore[method-assign]
        await until(pool.is_ready)


async def test_a_draining_pool_is_not_ready_and_finishes_what_it_has() -> None:
    async with pool_of([ALIVE, 0.1, DONE]) as (pool, replicas):
        working = asyncio.create_task(pool.upscale(b"x", request()))
        await until(lambda: replicas.calls == 1)
        pool.drain()
        assert not pool.is_ready()
        await pool.stop(20)
        assert (await working).data == b"x"
        assert replicas.is_stopped
        with pytest.raises(RateLimitExceeded, match="stopping"):
            await pool.upscale(b"", request())


async def test_an_estimate_uses_the_measurements_of_replicas() -> None:
    async with pool_of([DONE], reports=[report(seconds_per_px=0.01)]) as (pool, _):
        assert pool.expect(request()).seconds == pytest.approx(100)
        assert pool.expect(request()).models == ("upscaled-x4",)
