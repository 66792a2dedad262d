"""A cluster of several machines answers as a single one: contract, refusals, rate and cancelling.

Each test prints its figures (`pytest -rP`). The times are those of a machine that does nothing
else; on a busy one they are longer.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle

import psutil
import pytest
import requests

from tests.cluster.bed import FRONT_ENDS, KEY, QUEUE, SLOTS, Bed
from tests.cluster.machines import wait_until
from tests.running import REPOSITORY_DIR, UPSCALED
from tests.service.pool.pools import picture

AT_ONCE = 40
SMALL_SIDE_PX = 256
"""Small enough for all places, of which one is for small results alone, yet none of the first is
done before the last is sent."""

STOPPED_WITHIN_S = 1.0
LONG_SIDE_PX = 1500

RATE_PER_S = 20
BURST = 10
HAMMERED_S = 30.0
HAMMERING = 8


def test_the_conformance_kit_passes(bed: Bed) -> None:
    """Through a front end, Ray, a replica on either node, PostgreSQL and the bucket."""
    options = ["--base-url", bed.url("f1"), "--api-key", KEY, "--per-second", "1000"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/conformance", "-m", "not slow", *options],
        cwd=REPOSITORY_DIR,
        capture_output=True,
        text=True,
        timeout=800,
    )
    print("conformance kit:", finished.stdout.strip().splitlines()[-1])
    assert finished.returncode == 0, finished.stdout[-5000:]
    assert " failed" not in finished.stdout


def test_a_full_queue_refuses_at_once_with_a_retry_after_that_holds(bed: Bed) -> None:
    with one_replica(bed):
        source, targets = picture(SMALL_SIDE_PX), cycle(FRONT_ENDS)
        began_at_s = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            sent = [threads.submit(post, bed, next(targets), source) for _ in range(AT_ONCE)]
            answers = [each.result() for each in sent]
        took_s = time.monotonic() - began_at_s
        worked = [each for each in answers if each.status == 200]
        refused = [each for each in answers if each.status == 429]
        waits_s = [each.retry_after_s for each in refused]
        slowest_s, first_s = (
            max(each.took_s for each in refused),
            min(each.took_s for each in worked),
        )
        print(
            f"{AT_ONCE} at once: {len(worked)} delivered within {took_s:.1f} s, {len(refused)} "
            f"refused within {slowest_s:.2f} s, Retry-After {min(waits_s)} to {max(waits_s)} s"
        )
        assert len(worked) == SLOTS + QUEUE
        assert len(refused) == AT_ONCE - SLOTS - QUEUE
        assert slowest_s < first_s
        assert min(waits_s) >= 1
        time.sleep(max(0, max(waits_s) - took_s))
        assert post(bed, "f1", source).status == 200


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_client_that_leaves_stops_the_replica_within_a_second(bed: Bed, front_end: str) -> None:
    stopped_s = leave_and_wait(bed, front_end)
    print(f"client of {front_end} left: the workers stood still {stopped_s:.2f} s later")
    assert stopped_s < STOPPED_WITHIN_S


def test_a_key_has_its_rate_once_for_both_front_ends(bed: Bed) -> None:
    name = f"limited-{time.time_ns()}"
    create = [*UPSCALED, "keys", "create", name, "--rate", str(RATE_PER_S), "--burst", str(BURST)]
    key = bed["f1"].run(create, bed.environment).split()[-1]
    began_at_s = time.monotonic()

    def hammer(front_end: str) -> list[int]:
        """Send requests that pass the rate, and are then refused for having no body."""
        statuses = []
        with requests.Session() as session:
            session.headers["X-API-KEY"] = key
            while time.monotonic() - began_at_s < HAMMERED_S:
                statuses.append(session.post(f"{bed.url(front_end)}/v1/upscale").status_code)
        return statuses

    with ThreadPoolExecutor(HAMMERING) as threads:
        lists = list(threads.map(hammer, FRONT_ENDS * (HAMMERING // len(FRONT_ENDS))))
    took_s = time.monotonic() - began_at_s
    statuses = [status for each in lists for status in each]
    passed, allowed = len(statuses) - statuses.count(429), BURST + RATE_PER_S * took_s
    print(f"rate: {passed} of {len(statuses)} passed in {took_s:.1f} s, {allowed:.0f} were allowed")
    assert set(statuses) == {400, 429}
    assert passed == pytest.approx(allowed, rel=0.02)


@dataclass(frozen=True)
class _Answer:
    status: int
    took_s: float
    retry_after_s: int


def post(bed: Bed, front_end: str, source: bytes) -> _Answer:
    began_at_s = time.monotonic()
    answer = requests.post(
        f"{bed.url(front_end)}/v1/upscale",
        headers={"X-API-KEY": KEY, "Accept": "image/*"},
        files={"image": source},
        data={"scale": "4"},
        timeout=300,
    )
    took_s = time.monotonic() - began_at_s
    return _Answer(answer.status_code, took_s, int(answer.headers.get("Retry-After", "0")))


@contextmanager
def one_replica(bed: Bed) -> Iterator[None]:
    bed.deploy(1)
    bed.wait_healthy(1)
    wait_until(lambda: len(bed.replicas()) == 1, "the other replica ends")
    try:
        yield
    finally:
        bed.deploy(2)
        bed.wait_healthy()


def leave_and_wait(bed: Bed, front_end: str) -> float:
    """Leave while the workers compute; return after how many seconds they stood still."""
    workers = bed.workers()
    form = requests.Request(
        "POST",
        f"{bed.url(front_end)}/v1/upscale",
        headers={"X-API-KEY": KEY, "Accept": "image/*"},
        files={"image": picture(LONG_SIDE_PX)},
        data={"scale": "4"},
    ).prepare()
    connection = HTTPConnection(re.sub("^http://", "", bed.url(front_end)), timeout=60)
    idle_s = busy_s(workers)
    connection.request("POST", "/v1/upscale", form.body, dict(form.headers))
    # A second of a core's time: it is amid the tiles.
    wait_until(lambda: busy_s(workers) - idle_s > 1, "a worker computes")
    connection.close()
    left_at_s = stopped_at_s = time.monotonic()
    before_s = busy_s(workers)
    while time.monotonic() - stopped_at_s < 1:
        time.sleep(0.05)
        now_s = busy_s(workers)
        if now_s - before_s > 0.02:  # a tick of Alive messages takes less
            before_s, stopped_at_s = now_s, time.monotonic()
        assert stopped_at_s - left_at_s < 30, "the workers go on"
    return stopped_at_s - left_at_s


def busy_s(workers: list[psutil.Process]) -> float:
    """Return the processor seconds of these so far."""
    times = [each.cpu_times() for each in workers]
    return sum(each.user + each.system for each in times)
