"""A service of the measurement's own, and requests to it as any client would send them."""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

from scripts.benchmark.effort import SCALE
from scripts.benchmark.pictures import make_picture
from tests.running import serve

START_TIMEOUT_S = 600
"""The first start on a machine may measure what is fastest there."""

ANSWER_TIMEOUT_S = 1800
SETTINGS = {
    "UPSCALED_PRECISION": "auto",
    "UPSCALED_PACKAGED_MODELS": "true",
    "UPSCALED_RATE_PER_S": "100000",
    "UPSCALED_RATE_BURST": "100000",
    "UPSCALED_MAX_QUEUE": "1000",
    "UPSCALED_WORK_TIMEOUT_S": "3600",
}
"""As installed, and without limits."""


class Answer(NamedTuple):
    """One answered request: the client's seconds, and those in which the network was not at work.

    Cutting, checking and stitching count as outside where the service reports them apart.
    """

    seconds: float
    outside_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """A ready service. `process` is the supervisor, whose one child is the front end."""

    url: str
    key: str
    process: psutil.Process
    ready_s: float

    def send(self, photo: bytes, session: requests.Session | None = None) -> Answer:
        """Send a photo and read the whole result; a refusal raises `requests.HTTPError`."""
        started = time.perf_counter()
        answer = (session or requests).post(
            f"{self.url}/v1/upscale",
            headers={"X-API-KEY": self.key, "Accept": "image/*"},
            files={"image": photo},
            data={"scale": SCALE},
            timeout=ANSWER_TIMEOUT_S,
        )
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        stages_s = read_stages(answer.headers["Server-Timing"])
        return Answer(seconds, seconds - stages_s.get("device", stages_s["network"]))

    def send_all(self, sides_px: Sequence[int], clients: int) -> tuple[list[Answer], float]:
        """Send the sample at each size, at most `clients` at once; also return the seconds."""
        photos = {side_px: make_picture(side_px) for side_px in set(sides_px)}
        own = threading.local()

        def send(side_px: int) -> Answer:
            if not hasattr(own, "session"):
                own.session = requests.Session()
            return self.send(photos[side_px], own.session)

        with ThreadPoolExecutor(clients) as pool:
            started = time.perf_counter()
            answers = list(pool.map(send, sides_px))
            return answers, time.perf_counter() - started


def read_stages(header: str) -> dict[str, float]:
    """Read the seconds by stage of a Server-Timing header."""
    stages = re.findall(r"(\w+);dur=([0-9.]+)", header)
    return {name: float(milliseconds) / 1000 for name, milliseconds in stages}


@contextmanager
def serving(data_dir: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """Run `upscaled serve` on a free port until the block ends, with a key and no limits.

    Args:
        data_dir: a folder without a database, which the service makes with its first key.
        settings: further `UPSCALED_*` variables; the caller's environment gives none.
    """
    variables: Mapping[str, Any] = {**SETTINGS, **settings}
    started = time.perf_counter()
    with serve(data_dir, has_tables=False, timeout_s=START_TIMEOUT_S, **variables) as running:
        process = psutil.Process(running.process.pid)
        yield Server(running.url, running.key, process, time.perf_counter() - started)
