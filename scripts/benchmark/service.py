"""Parts `http` and `memory`: whole requests to a running service, and the memory they take."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import psutil
import requests

from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Figures, query_gpu
from scripts.benchmark.pictures import CONTENT_SHARE, make_jpeg, make_opaque_png, make_product
from scripts.benchmark.server import Answer, Server

AVATAR_PX = 64
HEAD_START_S = 0.3
COLD_REPEATS = 5
MIB = 2**20
PERIOD_S = 0.05
IDLE_S = 1.0


def measure_http(server: Server, effort: Effort) -> Figures:
    """Measure requests alone, beside others, and beside a large one, at scale 4."""
    server.send(make_jpeg(AVATAR_PX, AVATAR_PX), AVATAR_PX)
    return {
        "ready_s": round(server.ready_s, 2),
        "alone": {str(side): _send_alone(server, side, count) for side, count in effort.alone},
        "clients": {str(count): _send_mixed(server, effort, count) for count in effort.clients},
        "beside_large": _send_beside_large(server, effort),
        "small_images": _send_small(server, effort),
        "content": _send_products(server, effort),
    }


def measure_cold(server: Server, effort: Effort) -> Figures:
    """Measure the first request of a service, and the same a few times more."""
    photo, side_px = make_jpeg(effort.cold_px, effort.cold_px), effort.cold_px
    first, *later = (server.send(photo, side_px).seconds for _ in range(1 + COLD_REPEATS))
    return {
        "side_px": side_px,
        "ready_s": round(server.ready_s, 2),
        "first_s": round(first, 3),
        "later_s": round(percentile(later, 50), 3),
    }


def _send_alone(server: Server, side_px: int, count: int) -> Figures:
    """Send one after another; `share_outside_network` is of the client's time."""
    server.send_all([side_px], 1)
    answers, seconds = server.send_all([side_px] * count, 1)
    return describe(answers, seconds) | {"share_outside_network": round(share_outside(answers), 4)}


def _send_mixed(server: Server, effort: Effort, clients: int) -> Figures:
    """Send mixed sizes from clients that each send the next as soon as they have their answer."""
    count = clients * effort.per_client
    sides = [effort.mixed_px[at % len(effort.mixed_px)] for at in range(count)]
    return describe(*server.send_all(sides, clients))


def _send_beside_large(server: Server, effort: Effort) -> Figures:
    """Send 64x64 requests alone, then while a large image is always in flight."""

    def small_p95_s() -> float:
        answers, _ = server.send_all([AVATAR_PX] * effort.avatars, 1)
        return percentile([answer.seconds for answer in answers], 95)

    idle_p95_s = small_p95_s()
    poster = make_jpeg(effort.poster_px, effort.poster_px)
    with repeating(lambda: server.send(poster, effort.poster_px)):
        time.sleep(0 if effort.is_tiny else HEAD_START_S)
        busy_p95_s = small_p95_s()
    return {
        "small_px": AVATAR_PX,
        "large_px": effort.poster_px,
        "idle_p95_s": round(idle_p95_s, 4),
        "ratio": round(busy_p95_s / idle_p95_s, 3),
    }


def _send_small(server: Server, effort: Effort) -> Figures:
    """Send small images from several clients, and the same ones one at a time."""
    sides = [effort.small_px] * effort.small_images
    one_s, many_s = (server.send_all(sides, count)[1] for count in (1, effort.small_clients))
    return {
        "side_px": effort.small_px,
        "images": effort.small_images,
        "clients": effort.small_clients,
        "ratio": round(one_s / many_s, 3),
    }


def _send_products(server: Server, effort: Effort) -> Figures:
    """Send a product photo and a cut-out, each in turn with a full picture in its format."""
    side_px = effort.poster_px
    pairs = {
        "product photo, white around": (
            make_product(side_px, has_alpha=False),
            make_jpeg(side_px, side_px),
        ),
        "cut-out": (make_product(side_px, has_alpha=True), make_opaque_png(side_px)),
    }
    ratios = {}
    for name, pictures in pairs.items():
        rounds = [
            [server.send(picture, side_px).seconds for picture in pictures]
            for _ in range(effort.product_rounds)
        ]
        ratios[name] = round(percentile([few / full for few, full in rounds], 50), 3)
    return {"side_px": side_px, "share": CONTENT_SHARE, "ratios": ratios}


def describe(answers: Sequence[Answer], seconds: float) -> Figures:
    """Return latencies and throughput."""
    latencies = [answer.seconds for answer in answers]
    return {
        "requests": len(answers),
        "p50_s": round(percentile(latencies, 50), 4),
        "p95_s": round(percentile(latencies, 95), 4),
        "images_per_s": round(len(answers) / seconds, 3),
        "megapixels_per_s": round(sum(answer.megapixels for answer in answers) / seconds, 3),
    }


def share_outside(answers: Sequence[Answer]) -> float:
    """Return the share of clients' time outside the network; for requests sent alone."""
    return sum(answer.outside_s for answer in answers) / sum(answer.seconds for answer in answers)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many of them do not exceed."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


@contextmanager
def repeating(work: Callable[[], object], pause_s: float = 0) -> Iterator[list[float]]:
    """Do `work` at least once and over and over in another thread; yield the seconds each took.

    Raises:
        Exception: what `work` raised, when the block ends.
    """
    is_over = threading.Event()
    seconds: list[float] = []

    def repeat() -> None:
        while True:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
            if is_over.wait(pause_s):
                return

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(repeat)
        try:
            yield seconds
        finally:
            is_over.set()
        task.result()


class _Memory(NamedTuple):
    """Memory of the service's processes in MiB; pss counts what they share once."""

    rss: float
    pss: float
    processes: int


def _look(supervisor: psutil.Process) -> _Memory:
    """Add up the memory of the service's processes."""
    found = []
    for process in (supervisor, *supervisor.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # decoders come and go
            found.append(process.memory_full_info())
    rss = sum(memory.rss for memory in found)
    pss = sum(getattr(memory, "pss", memory.rss) for memory in found)
    return _Memory(rss / MIB, pss / MIB, len(found))


def measure_memory(server: Server, effort: Effort, device: str) -> Figures:
    """Measure memory around one large image on a fresh service, and `/healthz` meanwhile."""
    idle: list[_Memory] = []
    seen: list[_Memory] = []
    device_mib = [0.0]
    poster = make_jpeg(effort.poster_px, effort.poster_px)
    with repeating(lambda: idle.append(_look(server.process)), PERIOD_S):
        time.sleep(4 * PERIOD_S if effort.is_tiny else IDLE_S)
    with (
        requests.Session() as session,
        repeating(lambda: seen.append(_look(server.process)), PERIOD_S),
        repeating(lambda: session.get(f"{server.url}/healthz", timeout=60), 2 * PERIOD_S) as health,
        repeating(lambda: device_mib.append(float(query_gpu("memory.used") or 0)), 10 * PERIOD_S),
    ):
        answer = server.send(poster, effort.poster_px)
    (front_end,) = server.process.children()
    most_idle, most = (_Memory(*map(max, zip(*each, strict=True))) for each in (idle, seen))
    return {
        "side_px": effort.poster_px,
        "seconds": round(answer.seconds, 3),
        "idle": {"rss_mib": round(most_idle.rss), "pss_mib": round(most_idle.pss)},
        "front_end_rss_mib": round(front_end.memory_info().rss / MIB),
        "peak_rss_mib": round(most.rss),
        "peak_pss_mib": round(most.pss),
        "most_processes": most.processes,
        "healthz_ms": {
            "p50": round(percentile(health, 50) * 1000, 1),
            "p99": round(percentile(health, 99) * 1000, 1),
        },
        "peak_device_mib": round(max(device_mib)) if device == "cuda" else None,
    }
