"""Parts `http`, `cold` and `memory`: whole requests, and the memory they take."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle, islice

import numpy as np
import psutil
import requests

from scripts.benchmark.effort import SCALE, Effort
from scripts.benchmark.machine import Figures, query_gpu
from scripts.benchmark.pictures import CONTENT_SHARE, make_picture
from scripts.benchmark.server import Answer, Server

AVATAR_PX = 64
HEAD_START_S = 0.3
COLD_REPEATS = 5
MIB = 2**20
PERIOD_S = 0.05


def measure_http(server: Server, effort: Effort) -> Figures:
    """Measure requests alone, beside others, and beside a large one, at scale 4."""
    server.send_all([AVATAR_PX], 1)
    alone = {}
    for side, count in effort.alone:
        server.send_all([side], 1)
        figures, answers = send_timed(server, [side] * count, 1)
        seconds, outside_s = map(sum, zip(*answers, strict=True))
        alone[str(side)] = figures | {"share_outside_network": round(outside_s / seconds, 4)}
    clients = {}
    for count in effort.clients:  # each sends the next as soon as it has its answer
        sides = list(islice(cycle(effort.mixed_px), count * effort.per_client))
        clients[str(count)] = send_timed(server, sides, count)[0]
    return {
        "alone": alone,
        "clients": clients,
        "beside_large": _send_beside_large(server, effort),
        "small_images": _send_small(server, effort),
        "content": _send_products(server, effort),
    }


def measure_cold(server: Server, effort: Effort) -> Figures:
    """Measure the first request of a service, and the same a few times more."""
    photo = make_picture(effort.photo_px)
    first, *later = (server.send(photo).seconds for _ in range(1 + COLD_REPEATS))
    return {
        "side_px": effort.photo_px,
        "ready_s": round(server.ready_s, 2),
        "first_s": round(first, 3),
        "later_s": round(percentile(later, 50), 3),
    }


def send_timed(
    server: Server, sides_px: Sequence[int], clients: int
) -> tuple[Figures, list[Answer]]:
    """Send the sample at each size; return latencies and throughput, and the answers."""
    answers, seconds = server.send_all(sides_px, clients)
    latencies = [answer.seconds for answer in answers]
    megapixels = sum((side_px * SCALE) ** 2 for side_px in sides_px) / 1e6
    figures: Figures = {
        "requests": len(answers),
        "p50_s": round(percentile(latencies, 50), 4),
        "p95_s": round(percentile(latencies, 95), 4),
        "images_per_s": round(len(answers) / seconds, 3),
        "megapixels_per_s": round(megapixels / seconds, 3),
    }
    return figures, answers


def _send_beside_large(server: Server, effort: Effort) -> Figures:
    """Send 64x64 requests alone, then while a large image is always in flight."""

    def small_p95_s() -> float:
        answers, _ = server.send_all([AVATAR_PX] * effort.avatars, 1)
        return percentile([answer.seconds for answer in answers], 95)

    idle_p95_s = small_p95_s()
    poster = make_picture(effort.poster_px)
    with repeating(lambda: server.send(poster)):
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
    side_px, images, clients = effort.small_px, effort.small_images, effort.small_clients
    one_s, many_s = (server.send_all([side_px] * images, count)[1] for count in (1, clients))
    ratio = round(one_s / many_s, 3)
    return {"side_px": side_px, "images": images, "clients": clients, "ratio": ratio}


def _send_products(server: Server, effort: Effort) -> Figures:
    """Send a product photo and a cut-out, each in turn with a full picture in its format."""
    side_px = effort.poster_px
    ratios = {}
    for name, has_alpha in (("product photo, white around", False), ("cut-out", True)):
        few = make_picture(side_px, has_alpha=has_alpha, is_product=True)
        full = make_picture(side_px, has_alpha=has_alpha)
        rounds = [(server.send(few), server.send(full)) for _ in range(effort.rounds)]
        ratios[name] = round(percentile([a.seconds / b.seconds for a, b in rounds], 50), 3)
    return {"side_px": side_px, "share": CONTENT_SHARE, "ratios": ratios}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many of them do not exceed."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


@contextmanager
def repeating(work: Callable[[], object], pause_s: float = 0) -> Iterator[list[float]]:
    """Do `work` at least once and over and over in another thread; yield the seconds each took.

    What `work` raised is raised when the block ends.
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


def measure_memory(server: Server, effort: Effort, device: str) -> Figures:
    """Measure memory around one large image on a fresh service, and `/healthz` meanwhile."""
    seen: list[tuple[float, float]] = []
    device_mib = [0.0]
    poster = make_picture(effort.poster_px)
    with (
        requests.Session() as session,
        repeating(lambda: seen.append(_look(server.process)), PERIOD_S),
        repeating(lambda: session.get(f"{server.url}/healthz", timeout=60), 2 * PERIOD_S) as health,
        repeating(lambda: device_mib.append(float(query_gpu("memory.used") or 0)), 10 * PERIOD_S),
    ):
        answer = server.send(poster)
    return {
        "side_px": effort.poster_px,
        "seconds": round(answer.seconds, 3),
        "peak_rss_mib": round(max(rss for rss, _ in seen)),
        "peak_pss_mib": round(max(pss for _, pss in seen)),
        "healthz_ms": {f"p{at}": round(percentile(health, at) * 1000, 1) for at in (50, 99)},
        "peak_device_mib": round(max(device_mib)) if device == "cuda" else None,
    }


def _look(supervisor: psutil.Process) -> tuple[float, float]:
    """Return the MiB of the service's processes, and those with what they share counted once."""
    found = []
    for process in (supervisor, *supervisor.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # decoders come and go
            found.append(_measure_bytes(process))
    return sum(rss for rss, _ in found) / MIB, sum(pss for _, pss in found) / MIB


def _measure_bytes(process: psutil.Process) -> tuple[int, int]:
    """Return a process's resident bytes, and its share of them where the system counts that.

    A front end shows what it shares to root alone; for others it counts in full.
    """
    try:
        memory = process.memory_full_info()
    except psutil.AccessDenied:
        rss = process.memory_info().rss
        return rss, rss
    return memory.rss, getattr(memory, "pss", memory.rss)
