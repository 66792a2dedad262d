"""A service of the measurement's own, and requests to it as any client would send them."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from scripts.benchmark.pictures import make_jpeg

START_TIMEOUT_S = 600
"""The first start on a machine may measure what is fastest there."""

ANSWER_TIMEOUT_S = 1800
STOP_TIMEOUT_S = 60
SCALE = 4
WITHOUT_LIMITS = {
    "UPSCALED_RATE_PER_S": "100000",
    "UPSCALED_RATE_BURST": "100000",
    "UPSCALED_MAX_QUEUE": "1000",
    "UPSCALED_WORK_TIMEOUT_S": "3600",
}
_COMMAND = [sys.executable, "-c", "from upscaled.cli import main; main()"]


class ServerFailed(Exception):
    """The service does not start, or stops; the text is the end of its log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request. stages_s: seconds by stage of its Server-Timing header."""

    seconds: float
    stages_s: Mapping[str, float]
    megapixels: float

    @property
    def outside_s(self) -> float:
        """The client's time during which the network was not at work.

        Cutting, checking and stitching count as outside where the service reports them apart.
        """
        return self.seconds - self.stages_s.get("device", self.stages_s["network"])


@dataclass(frozen=True, slots=True)
class Server:
    """A ready service. `process` is the supervisor, whose one child is the front end."""

    url: str
    key: str
    process: psutil.Process
    ready_s: float

    def send(self, photo: bytes, side_px: int, session: requests.Session | None = None) -> Answer:
        """Send a photo of `side_px` x `side_px` and read the whole result.

        Raises:
            requests.HTTPError: it was refused.
        """
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
        return Answer(seconds, stages_s, (side_px * SCALE) ** 2 / 1e6)

    def send_all(self, sides_px: Sequence[int], clients: int) -> tuple[list[Answer], float]:
        """Send the sample at each size, at most `clients` at once; also return the seconds."""
        photos = {side_px: make_jpeg(side_px, side_px) for side_px in set(sides_px)}
        own = threading.local()

        def send(side_px: int) -> Answer:
            if not hasattr(own, "session"):
                own.session = requests.Session()
            return self.send(photos[side_px], side_px, own.session)

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
    """Run `upscaled serve` on a free port until the block ends.

    Args:
        settings: further `UPSCALED_*` variables, by their whole names. The caller's environment
            gives none.

    Raises:
        ServerFailed: it is not ready in time.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSCALED_")}
    environment = {**kept, **WITHOUT_LIMITS, "UPSCALED_DATA_DIR": str(data_dir), **settings}
    create = [*_COMMAND, "keys", "create", f"bench-{time.time_ns()}", "--credits", "1000000"]
    key = subprocess.check_output(create, env=environment, text=True).split()[-1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        serve = [*_COMMAND, "serve", "--port", str(port)]
        process = subprocess.Popen(serve, env=environment, stdout=log, stderr=log)
        try:
            if not _becomes_ready(url, process):
                log.seek(0)
                raise ServerFailed(f"the service is not ready:\n{log.read()[-2000:]}")
            yield Server(url, key, psutil.Process(process.pid), time.perf_counter() - started)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _becomes_ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the service is ready; False where it ended, or is not ready in time."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return True
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.1)
    return False
