"""Many clients at once, each sending one request after another."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import requests

from scripts.benchmark.machine import Facts
from scripts.benchmark.pictures import make_jpeg
from scripts.benchmark.server import Answer, Server


def send_all(server: Server, sides_px: Sequence[int], clients: int) -> tuple[list[Answer], float]:
    """A request for each of `sides_px`, at most `clients` at once; and the seconds of all."""
    photos = {side_px: make_jpeg(side_px, side_px) for side_px in set(sides_px)}
    own = threading.local()

    def send(side_px: int) -> Answer:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        return server.send(photos[side_px], side_px, session=own.session)

    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        answers = list(pool.map(send, sides_px))
        return answers, time.perf_counter() - started


def describe(answers: Sequence[Answer], seconds: float) -> Facts:
    """Waiting times, throughput, and where the time went."""
    waits = [answer.seconds for answer in answers]
    return {
        "requests": len(answers),
        "p50_s": round(percentile(waits, 0.50), 4),
        "p95_s": round(percentile(waits, 0.95), 4),
        "images_per_s": round(len(answers) / seconds, 3),
        "megapixels_per_s": round(sum(answer.megapixels for answer in answers) / seconds, 3),
    }


def share_outside(answers: Sequence[Answer]) -> float:
    """Of the clients' time, what was spent outside the network; for requests sent alone."""
    whole = sum(answer.seconds for answer in answers)
    return sum(answer.outside_s for answer in answers) / whole


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@contextmanager
def kept_busy(work: Callable[[], object]) -> Iterator[list[float]]:
    """`work` over and over in another thread during the block; the seconds each took.

    Raises:
        Exception: what `work` raised, when the block ends.
    """
    is_over = threading.Event()
    seconds: list[float] = []

    def repeat() -> None:
        while not is_over.is_set():
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(repeat)
        try:
            yield seconds
        finally:
            is_over.set()
        task.result()
