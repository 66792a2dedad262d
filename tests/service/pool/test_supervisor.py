"""Workers that die, hang, break the protocol or cannot start, and the requests they had."""

import asyncio
import errno
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from tests.service.pool.pools import (
    QUICK,
    fake_command,
    order,
    pids_of,
    request,
    running_pool,
    send,
    until,
    workers_of,
)
from upscaled.config import load_settings
from upscaled.errors import InternalError, RateLimitExceeded, ServiceError
from upscaled.pool.local import LocalPool
from upscaled.pool.worker_process import WorkerDied, WorkerProcess
from upscaled.process.child import ChildUnusable
from upscaled.process.supervision import Activity, Limits
from upscaled.upscale.result import Result

SOUND_PROGRAM = f"import runpy; runpy.run_path({fake_command()[1]!r}, run_name='__main__')"


async def test_a_death_with_others_in_flight_counts_against_no_image(tmp_path: Path) -> None:
    """One that is killed beside another, then once more alone, is answered the third time."""
    may_end = tmp_path / "may end"
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        [first] = pids_of(pool)
        unlucky = order("die", after_s=0.2, marker=str(tmp_path / "m"), times=2)
        jobs = [send(pool, source) for source in (order("answer", until=str(may_end)), unlucky)]
        await until(lambda: first not in pids_of(pool))
        may_end.touch()
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
    assert (tmp_path / "m").read_text() == "xxx"


async def test_two_deaths_without_others_in_flight_count_against_the_image(
    tmp_path: Path,
) -> None:
    async with running_pool(workers=1) as pool:
        twice = order("die", marker=str(tmp_path / "m"), times=2)
        with pytest.raises(InternalError, match="2 workers died while this was their only image"):
            await pool.upscale(twice, request())
    assert (tmp_path / "m").read_text() == "xx"


async def test_a_poisonous_image_kills_three_workers_at_most(tmp_path: Path) -> None:
    may_end = tmp_path / "may end"
    async with running_pool(workers=1, jobs_per_worker=4) as pool:
        [first] = pids_of(pool)
        neighbour = send(pool, order("answer", until=str(may_end)))
        poison = order("die", after_s=0.1, marker=str(tmp_path / "m"), times=99)
        poisoning = send(pool, poison, request("poison"))
        await until(lambda: first not in pids_of(pool))
        may_end.touch()
        with pytest.raises(InternalError, match="2 workers died while this was their only image"):
            await poisoning
        assert isinstance(await neighbour, Result)
    assert (tmp_path / "m").read_text() == "xxx"


async def test_a_retry_precedes_the_images_that_waited_behind_it(tmp_path: Path) -> None:
    finished: list[str] = []

    async def upscale(pool: LocalPool, name: str, source: bytes) -> None:
        await pool.upscale(source, request(name))
        finished.append(name)

    async with running_pool(workers=1, jobs_per_worker=1) as pool:
        await asyncio.gather(
            upscale(pool, "first", order("die", marker=str(tmp_path / "m"))),
            upscale(pool, "second", order("answer")),
            upscale(pool, "third", order("answer")),
        )
    assert finished == ["first", "second", "third"]


async def test_a_poisonous_image_fails_none_of_its_neighbours() -> None:
    """Twenty innocent images, one that kills every worker, and a kill from outside."""
    async with running_pool(workers=1, jobs_per_worker=4, max_queue=100) as pool:
        innocent = order("answer", after_s=0.05)
        jobs = [send(pool, innocent, request(f"innocent {number}")) for number in range(20)]
        poison = send(pool, order("die", after_s=0.02), request("poison"))
        await until(lambda: sum(job.done() for job in jobs) >= 6)
        for pid in pids_of(pool):
            os.kill(pid, signal.SIGKILL)
        jobs += [send(pool, innocent, request(f"late {number}")) for number in range(4)]
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*jobs))
        with pytest.raises(InternalError, match="2 workers died"):
            await poison


async def test_images_that_lost_their_worker_are_retried_one_at_a_time(tmp_path: Path) -> None:
    """All write into the same file while they are at work."""
    trace, may_begin = tmp_path / "trace", tmp_path / "may begin"
    tiles = order("tiles", count=4, tile_s=0.05, trace=str(trace), gates={"0": str(may_begin)})
    async with running_pool(workers=2, jobs_per_worker=4) as pool:
        jobs = [send(pool, tiles, request(str(at))) for at in range(6)]
        await until(lambda: pool.stats().running == 6)
        killed = pids_of(pool)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not set(killed) & set(pids_of(pool)))
        may_begin.touch()
        await asyncio.gather(*jobs)
    steps = [int(line) for line in trace.read_text().split()]
    assert len(steps) == 6 * 4
    first, last = min(steps), max(steps)
    under_way = accumulate((step == first) - (step == last) for step in steps)
    assert max(under_way) <= 2  # one in each worker


@pytest.mark.parametrize(("silence_s", "work_s"), [(2, 20), (60, 3)], ids=["silence", "deadline"])
async def test_a_hung_worker_is_replaced_at_the_shorter_limit_and_its_image_retried(
    tmp_path: Path, silence_s: float, work_s: float
) -> None:
    limits = Limits(work_s=work_s, silence_s=silence_s, backoff_s=0.02)
    async with running_pool(limits=limits) as pool:
        [first] = workers_of(pool)
        started = time.monotonic()
        await pool.upscale(order("hang", marker=str(tmp_path / "m")), request())
        assert 1.5 < time.monotonic() - started < 19
        assert not psutil.pid_exists(first.pid)


async def test_an_idle_worker_that_is_stopped_is_replaced() -> None:
    async with running_pool(limits=Limits(work_s=20, silence_s=2, backoff_s=0.02)) as pool:
        [first] = workers_of(pool)
        first.suspend()
        await until(lambda: pids_of(pool) not in ((), (first.pid,)))
        assert not psutil.pid_exists(first.pid)
        await pool.upscale(order("answer"), request())


async def test_an_image_slower_than_its_deadline_fails_once_and_its_worker_is_replaced() -> None:
    async with running_pool(limits=Limits(work_s=3, backoff_s=0.02)) as pool:
        started = time.monotonic()
        with pytest.raises(InternalError, match="worked on one image for 3 s"):
            await pool.upscale(order("answer", after_s=60), request())
        assert time.monotonic() - started < 50
        await pool.upscale(order("answer"), request())


async def test_an_image_just_within_its_deadline_is_answered() -> None:
    async with running_pool(limits=Limits(work_s=5)) as pool:
        await pool.upscale(order("answer", after_s=1.5), request())


async def test_images_beside_one_past_its_deadline_are_retried_and_answered() -> None:
    async with running_pool(jobs_per_worker=4, limits=Limits(work_s=3, backoff_s=0.02)) as pool:
        late = send(pool, order("answer", after_s=30), request("late"))
        await asyncio.sleep(2)
        others = [send(pool, order("answer", after_s=1.2), request(str(at))) for at in range(2)]
        with pytest.raises(InternalError, match="worked on one image for 3 s"):
            await late
        assert all(isinstance(answer, Result) for answer in await asyncio.gather(*others))


async def test_a_death_by_the_deadline_of_one_image_does_not_count_against_another(
    tmp_path: Path,
) -> None:
    """The late worker is gone by the time its neighbour learns of the death."""
    may_end = tmp_path / "may end"
    async with running_pool(jobs_per_worker=4, limits=Limits(work_s=3, backoff_s=0.02)) as pool:
        [first] = pids_of(pool)
        late = send(pool, order("answer", after_s=30), request("late"))
        await asyncio.sleep(1)
        neighbour = send(pool, order("answer", until=str(may_end)), request("unlucky"))
        with pytest.raises(InternalError, match="worked on one image for 3 s"):
            await late
        await until(lambda: pids_of(pool) not in ((), (first,)) and pool.stats().running == 1)
        for pid in pids_of(pool):
            os.kill(pid, signal.SIGKILL)  # alone, for the first time
        may_end.touch()
        assert isinstance(await neighbour, Result)


async def test_a_worker_that_breaks_the_protocol_is_killed_and_replaced() -> None:
    async with running_pool() as pool:
        with pytest.raises(InternalError):
            await pool.upscale(order("nonsense"), request())
        await pool.upscale(order("answer"), request())


@pytest.mark.slow
async def test_every_admitted_request_is_answered_while_workers_are_killed(tmp_path: Path) -> None:
    async with running_pool(workers=2, jobs_per_worker=1, max_queue=1000) as pool:
        jobs = []
        for number in range(60):
            match number % 4:
                case 0:
                    source = order("answer", after_s=0.01)
                case 1:
                    source = order("die", marker=str(tmp_path / str(number)))
                case 2:
                    source = order("refuse")
                case _:
                    source = order("answer", after_s=0.01, size_bytes=300_000)
            jobs.append(send(pool, source, request(str(number))))
        for job in jobs[3::20]:
            await asyncio.sleep(0.02)
            job.cancel()
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        kinds = Counter(type(outcome).__name__ for outcome in outcomes)
        assert set(kinds) <= {"Result", "MalformedImage", "CancelledError"}
        assert kinds["MalformedImage"] == 15
        assert kinds["Result"] >= 15 + 15 + 12
        assert pool._admission._admitted == 0
        assert pool.stats().running == 0


async def test_an_unusable_worker_leaves_the_pool_not_ready_and_fails_requests_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_pool(command=fake_command("unusable"), is_waiting=False) as pool:
        early = send(pool, order("answer"))
        with pytest.raises(InternalError, match="the model is on holiday"):
            await early
        assert not pool.is_ready()
        with pytest.raises(InternalError, match="the model is on holiday"):
            await pool.upscale(order("answer"), request())
    assert "the model is on holiday" in caplog.text


@pytest.mark.parametrize("command", [fake_command("unusable"), ("/nowhere/python",)])
async def test_waiting_for_workers_that_are_all_unusable_ends_with_the_reason(
    command: tuple[str, ...],
) -> None:
    async with running_pool(command=command, is_waiting=False, workers=2) as pool:
        async with asyncio.timeout(60):
            with pytest.raises(ChildUnusable, match=r"on holiday|cannot start /nowhere/python"):
                await pool.wait_ready()


async def test_the_first_ready_message_is_kept_when_the_worker_becomes_unusable_later() -> None:
    async with running_pool() as pool:
        pool._supervisors[0]._command = fake_command("unusable")
        [worker] = workers_of(pool)
        worker.kill()
        await until(lambda: pool._supervisors[0].is_unusable)
        assert (await pool.wait_ready()).device == "fake"
        with pytest.raises(InternalError, match="the model is on holiday"):
            await pool.upscale(order("answer"), request())


@pytest.mark.parametrize(
    ("command", "answer"),
    [(fake_command("die"), RateLimitExceeded), (("/nowhere/python",), InternalError)],
)
async def test_requests_are_answered_when_no_worker_ever_starts(
    command: tuple[str, ...], answer: type[ServiceError]
) -> None:
    async with running_pool(command=command, is_waiting=False) as pool:
        with pytest.raises(answer):
            await pool.upscale(order("answer"), request())
        assert not pool.is_ready()


async def test_a_worker_that_is_never_ready_is_given_up() -> None:
    limits = Limits(work_s=20, start_s=0.5, end_s=0.1, backoff_s=0.01)
    async with running_pool(command=fake_command("mute"), limits=limits, is_waiting=False) as pool:
        with pytest.raises(RateLimitExceeded, match=r"not ready within 0\.5 s"):
            await pool.upscale(order("answer"), request())


async def test_a_worker_that_waits_for_a_core_as_it_starts_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starved = Activity(cpu_ticks=7, is_runnable=True)
    monkeypatch.setattr("upscaled.process.supervision.read_activity", lambda _: starved)
    late = ("sh", "-c", 'sleep 1; exec "$@"', "sh", *fake_command())
    worker = await WorkerProcess.start(late, load_settings({}), replace(QUICK, start_s=0.3))
    await worker.end()


async def test_a_worker_that_no_kill_ends_is_replaced_and_its_image_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose driver does not answer any more: it is in an uninterruptible sleep."""
    monkeypatch.setattr("upscaled.process.child.KILLED_WITHIN_S", 0.2)
    limits = replace(QUICK, silence_s=1.0)
    async with running_pool(limits=limits) as pool:
        (stuck,) = workers_of(pool)
        kill = os.kill
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda pid, sig: None if pid == stuck.pid else kill(pid, sig))
            ordered = order("hang", marker=str(tmp_path / "hung"))
            upscaled = await pool.upscale(ordered, request())
            assert upscaled.media_type
            assert pids_of(pool) != (stuck.pid,)
        stuck.kill()
        await until(lambda: not psutil.pid_exists(stuck.pid))  # it is reaped


async def test_a_worker_that_no_kill_ends_before_it_is_ready_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one whose driver hangs as it opens its device, and which keeps its socket open."""
    monkeypatch.setattr("upscaled.process.child.KILLED_WITHIN_S", 0.2)
    limits = replace(QUICK, start_s=0.5, end_s=0.1)
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    before = set(psutil.Process().children())
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda pid, sig: None)
        async with asyncio.timeout(30):
            with pytest.raises(WorkerDied, match=r"not ready within 0\.5 s"):
                await WorkerProcess.start(command, load_settings({}), limits)
    (stuck,) = set(psutil.Process().children()) - before
    stuck.kill()
    await until(lambda: not psutil.pid_exists(stuck.pid))  # it is reaped


async def test_the_pool_recovers_unaided_once_workers_can_start(tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text("raise SystemExit(1)")
    command = (sys.executable, str(program), "ready")
    async with running_pool(command=command, is_waiting=False) as pool:
        with pytest.raises(RateLimitExceeded):
            await pool.upscale(order("answer"), request())
        program.write_text(SOUND_PROGRAM)
        await pool.wait_ready()
        assert pool.is_ready()
        await pool.upscale(order("answer"), request())


async def test_a_request_before_the_first_worker_is_ready_waits_for_it() -> None:
    async with running_pool(is_waiting=False) as pool:
        assert not pool.is_ready()
        await pool.upscale(order("answer"), request())


async def test_while_its_only_worker_is_replaced_the_pool_is_not_ready_but_accepts_work() -> None:
    async with running_pool(workers=1) as pool:
        [worker] = workers_of(pool)
        worker.kill()
        await until(lambda: not pool.is_ready())
        await pool.upscale(order("answer"), request())
        assert pool.is_ready()


@pytest.mark.slow
async def test_while_starts_fail_requests_are_refused_until_one_succeeds(tmp_path: Path) -> None:
    """Ready once, then some starts that come to nothing, then well again."""
    limits = Limits(work_s=20, start_s=20, backoff_s=0.02, max_backoff_s=0.1, steady_s=0)
    program = tmp_path / "worker.py"
    program.write_text(SOUND_PROGRAM)
    command = (sys.executable, str(program), "ready")
    async with running_pool(command=command, limits=limits) as pool:
        await pool.upscale(order("answer"), request())
        program.write_text("raise SystemExit(1)")
        waiting = send(pool, order("die"))
        with pytest.raises(RateLimitExceeded) as caught:
            await waiting
        assert caught.value.reason == "starting"
        failed = pool.stats().failed_starts
        while pool.stats().failed_starts < failed + 2:
            assert not pool.is_ready()
            with pytest.raises(RateLimitExceeded) as caught:
                await pool.upscale(order("answer"), request())
            assert caught.value.reason == "starting"
            await asyncio.sleep(0.02)
        program.write_text(SOUND_PROGRAM)
        await until(pool.is_ready)
        await pool.upscale(order("answer"), request())


class SkippingSelector(selectors.SelectSelector):
    """Waits for nothing; counts the seconds that it was to wait for."""

    skipped_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.skipped_s += timeout or 0.0
        return super().select(None if timeout is None else 0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """Event loop whose clock goes on to the next timer at once where nothing else is to be done."""

    def __init__(self) -> None:
        self._skipping = SkippingSelector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.skipped_s


def test_a_refusal_while_starts_fail_names_the_seconds_until_the_next_start_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_s, begun_at, refused = 0.25, [], []

    async def fail(*_: object) -> NoReturn:
        begun_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(start_s)
        raise WorkerDied("it cannot start")

    async def ask() -> None:
        limits = Limits(work_s=20, backoff_s=1, max_backoff_s=8)
        async with running_pool(limits=limits, is_waiting=False, workers=1) as pool:
            while len(begun_at) < 6:
                with pytest.raises(RateLimitExceeded) as caught:
                    await pool.upscale(order("answer"), request())
                now = asyncio.get_running_loop().time()
                refused.append((now, caught.value.retry_after_s))
                await asyncio.sleep(0.1875)

    monkeypatch.setattr(WorkerProcess, "start", fail)
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(ask())

    over_at = [each + start_s for each in begun_at]
    for now, retry_after_s in refused:
        wait_s = next(each for each in over_at if each > now) - now
        assert retry_after_s == max(1, math.ceil(wait_s)), (now, wait_s)
    assert {retry_after_s for _, retry_after_s in refused} == set(range(1, 10))


async def test_a_start_that_fails_without_memory_is_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_pool() as pool:
        with monkeypatch.context() as full:
            full.setattr(asyncio, "create_subprocess_exec", fail_with(errno.ENOMEM))
            [worker] = workers_of(pool)
            worker.kill()
            await until(lambda: pool.stats().failed_starts >= 3)
            with pytest.raises(RateLimitExceeded, match="Cannot allocate memory"):
                await pool.upscale(order("answer"), request())
            full.setattr(socket, "socketpair", fail_with(errno.EMFILE))
            failed = pool.stats().failed_starts
            await until(lambda: pool.stats().failed_starts >= failed + 2)
        await until(pool.is_ready)
        await pool.upscale(order("answer"), request())


def fail_with(number: int) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_minute_of_random_kills_loses_no_request() -> None:
    import random

    chance = random.Random(1)
    tried: Counter[str] = Counter()

    async def client(pool: LocalPool, until_s: float) -> None:
        while time.monotonic() < until_s:
            try:
                await pool.upscale(order("answer", after_s=0.05, size_bytes=100_000), request())
                tried["answered"] += 1
            except ServiceError as error:
                tried[type(error).__name__] += 1

    async with running_pool(workers=2) as pool:
        until_s = time.monotonic() + 60
        clients = [asyncio.create_task(client(pool, until_s)) for _ in range(6)]
        while time.monotonic() < until_s:
            await asyncio.sleep(chance.uniform(1, 3))
            if pids := pids_of(pool):
                os.kill(chance.choice(pids), signal.SIGKILL)
                tried["kills"] += 1
        await asyncio.gather(*clients)
    print(dict(tried))
    assert tried["kills"] >= 15
    assert set(tried) == {"answered", "kills"}
