"""How much longer a request takes through the cluster than with workers of the front end's own.

Workers that answer at once stand behind both, so that what is measured is the way of the bytes:
front end, Ray, replica, worker and back. Both front ends are on one machine, share database and
bucket, and are called in turn. It prints medians (`pytest -rP`), which hold on an idle machine.
"""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import requests

from tests.cluster.bed import KEY, PORT, Bed
from tests.cluster.instant import BUILD, SERVER
from tests.cluster.machines import wait_until
from tests.service.pool.pools import picture

LOCAL_PORT = 8001
FRONT_END = "f1"


class Kind(NamedTuple):
    """A kind of picture. scale: how many times larger its result is, as a file."""

    name: str
    size_bytes: int
    scale: int
    times: int
    most_added_s: float


KINDS = (
    Kind("avatar", 64_000, 4, 40, 0.015),
    Kind("photo", 3_000_000, 2, 20, 0.060),
    Kind("largest", 25_000_000, 4, 7, 0.4),
)


@pytest.fixture
def instant(bed: Bed) -> Iterator[Bed]:
    """The cluster with workers that answer at once, and a front end with its own of that kind."""
    with instant_workers(bed):
        yield bed


def test_a_cluster_adds_little_time(instant: Bed) -> None:
    added_s = {kind: measure(instant, kind) for kind in KINDS}
    for kind, seconds in added_s.items():
        assert seconds < kind.most_added_s, kind.name


@contextmanager
def instant_workers(bed: Bed) -> Iterator[None]:
    old = bed.replicas()
    bed.deploy(build=BUILD)
    bed.start_front_end(FRONT_END, LOCAL_PORT, SERVER, UPSCALED_CLUSTER="")
    try:
        bed.wait_replaced(old)
        wait_until(lambda: bed.is_ready(FRONT_END, LOCAL_PORT), "the local workers are ready")
        yield
    finally:
        bed.stop_front_end(FRONT_END, 60, LOCAL_PORT)
        old = bed.replicas()
        bed.deploy()
        bed.wait_replaced(old)


def measure(bed: Bed, kind: Kind) -> float:
    """Return how many seconds the cluster adds to the median request of a kind."""
    photo = picture(64)
    source = photo + os.urandom(kind.size_bytes - len(photo))  # behind its end nothing is read
    took_s: dict[int, list[float]] = {PORT: [], LOCAL_PORT: []}
    with requests.Session() as session:
        for _ in range(kind.times):
            for port, times_s in took_s.items():
                times_s.append(take_time(session, bed.url(FRONT_END, port), source, kind.scale))
    cluster_s, local_s = (statistics.median(times_s) for times_s in took_s.values())
    print(
        f"{kind.name}: {len(source) / 1e6:.1f} MB in, {len(source) * kind.scale / 1e6:.1f} MB "
        f"out, {1000 * local_s:.0f} ms with own workers, {1000 * cluster_s:.0f} ms on the cluster"
    )
    return cluster_s - local_s


def take_time(session: requests.Session, url: str, source: bytes, scale: int) -> float:
    began_at_s = time.monotonic()
    answer = session.post(
        f"{url}/v1/upscale",
        headers={"X-API-KEY": KEY, "Accept": "image/*"},
        files={"image": source},
        data={"scale": str(scale)},
        timeout=300,
    )
    took_s = time.monotonic() - began_at_s
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == len(source) * scale
    return took_s
