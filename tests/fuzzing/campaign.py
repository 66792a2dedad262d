"""Send damaged files to a server from several clients, and find what must not happen."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random
from statistics import median

import psutil
import requests

from tests.fuzzing.mutate import mutate
from tests.running import Server

CLIENTS = 4
SAMPLE_EVERY_FILES = 100
REFUSED_WITHIN_S = 1.0
LARGEST_SLOPE_KIB = 50.0
GROUP_SAMPLES = 10
KIB = 1024


@dataclass
class Statistics:
    """The outcomes, durations and memory of one campaign.

    rss_kib: (files so far, the front end's memory). worker_kib: the worker's at the same moments.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    slowest_refusal_s: float = 0.0
    slowest_refusal: int = -1
    slowest_success_s: float = 0.0
    slowest_success: int = -1
    slowest_success_stages: str = ""
    rss_kib: list[tuple[int, float]] = field(default_factory=list)
    worker_kib: list[float] = field(default_factory=list)
    decoder_deaths: int = 0
    is_front_end_alive: bool = True

    @property
    def files(self) -> int:
        return self.outcomes.total()

    @property
    def slope_kib_per_1000(self) -> float:
        """Growth of the front end's memory over the last half: the median of its steps.

        Of each ten samples the least counts, for pictures on their way come and go. A leak is in
        every step from ten to ten; one more of Python's arenas, 1 MiB, is a single step.
        """
        last = self.rss_kib[len(self.rss_kib) // 2 :]
        groups = [last[at : at + GROUP_SAMPLES] for at in range(0, len(last), GROUP_SAMPLES)]
        least = [min(group, key=lambda sample: sample[1]) for group in groups]
        slopes = [
            1000 * (y - before_y) / (x - before_x)
            for (before_x, before_y), (x, y) in pairwise(least)
        ]
        return median(slopes) if slopes else 0.0


class Campaign:
    """Files number 0, 1, 2 ... of a seed, each the same at every run."""

    def __init__(self, server: Server, seeds: Sequence[bytes], seed: int) -> None:
        self.statistics = Statistics()
        self._server = server
        self._seeds = seeds
        self._seed = seed
        self._numbers = count()
        self._lock = threading.Lock()
        self._front_end = server.front_end()

    def make(self, number: int) -> bytes:
        return mutate(self._seeds, Random(f"{self._seed}/{number}"))

    def run(self, *, seconds: float = float("inf"), files: float = float("inf")) -> Statistics:
        """Send files until the time or their number is up."""
        deadline = time.monotonic() + seconds
        clients = [
            threading.Thread(target=self._send_until, args=(deadline, files))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        self.statistics.decoder_deaths = sum(
            '"decoder_died"' in line for line in self._server.stderr
        )
        self.statistics.is_front_end_alive = self._front_end.is_running()
        return self.statistics

    def _send_until(self, deadline: float, files: float) -> None:
        with requests.Session() as session:
            session.headers.update({"X-API-KEY": self._server.key, "Accept": "image/*"})
            while time.monotonic() < deadline:
                with self._lock:
                    number = next(self._numbers)
                if number >= files or self._server.process.poll() is not None:
                    return
                self._send(session, number)

    def _send(self, session: requests.Session, number: int) -> None:
        source = self.make(number)
        started = time.monotonic()
        try:
            answer = session.post(
                f"{self._server.url}/v1/upscale",
                data={"scale": "2"},
                files={"image": ("f", source)},
                timeout=60,
            )
        except requests.RequestException as error:
            self._count(number, type(error).__name__, 599, time.monotonic() - started)
            return
        seconds = time.monotonic() - started
        word = "200" if answer.status_code == 200 else answer.json().get("error_code", "?")
        stages = answer.headers.get("Server-Timing", "")
        self._count(number, word, answer.status_code, seconds, stages)

    def _count(self, number: int, word: str, status: int, seconds: float, stages: str = "") -> None:
        statistics = self.statistics
        with self._lock:
            statistics.outcomes[word] += 1
            if status >= 500:
                statistics.failures[number] = word
            elif status == 200:
                if seconds > statistics.slowest_success_s:
                    statistics.slowest_success_s, statistics.slowest_success = seconds, number
                    statistics.slowest_success_stages = stages
            elif seconds > statistics.slowest_refusal_s:
                statistics.slowest_refusal_s, statistics.slowest_refusal = seconds, number
            if statistics.files % SAMPLE_EVERY_FILES == 0 and self._front_end.is_running():
                rss_kib = self._front_end.memory_info().rss / KIB
                statistics.rss_kib.append((statistics.files, rss_kib))
                statistics.worker_kib += self._measure_workers()

    def _measure_workers(self) -> list[float]:
        """The memory of those that are there, in KiB."""
        found = []
        for child in self._front_end.children():
            with suppress(psutil.NoSuchProcess):
                found.append(child.memory_info().rss / KIB)
        return found


def find_faults(statistics: Statistics) -> list[str]:
    """Return what must not happen, whatever is sent: one sentence for each fault."""
    faults = [f"file {number}: {word}" for number, word in sorted(statistics.failures.items())]
    if not statistics.is_front_end_alive:
        faults.append("the front end died")
    if statistics.slowest_refusal_s > REFUSED_WITHIN_S:
        faults.append(
            f"file {statistics.slowest_refusal}: refused in {statistics.slowest_refusal_s:.2f} s"
        )
    if statistics.slope_kib_per_1000 > LARGEST_SLOPE_KIB:
        faults.append(f"front end grows by {statistics.slope_kib_per_1000:.0f} KiB in 1,000 files")
    return faults
