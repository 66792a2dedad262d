"""A service of the measurement's own, and requests to it as any client would send them."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
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
WITHOUT_LIMITS = {
    "UPSCALED_RATE_PER_S": "100000",
    "UPSCALED_RATE_BURST": "100000",
    "UPSCALED_MAX_QUEUE": "1000",
    "UPSCALED_WORK_TIMEOUT_S": "3600",
}


class ServerFailed(Exception):
    """The service does not start, or stops; the text is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request. stages_s: what Server-Timing says of each stage."""

    seconds: float
    stages_s: Mapping[str, float]
    megapixels: float
    size_bytes: int

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

    def upscale(
        self, side_px: int, scale: int = 4, session: requests.Session | None = None
    ) -> Answer:
        """Send the sample at `side_px` x `side_px` and read the whole result.

        Raises:
            requests.HTTPError: it was refused.
        """
        return self.send(make_jpeg(side_px, side_px), side_px, scale, session)

    def send(
        self, photo: bytes, side_px: int, scale: int = 4, session: requests.Session | None = None
    ) -> Answer:
        """As `upscale`, with the photo's bytes made before."""
        started = time.perf_counter()
        answer = (session or requests).post(
            f"{self.url}/v1/upscale",
            headers={"X-API-KEY": self.key, "Accept": "image/*"},
            files={"image": photo},
            data={"scale": scale},
            timeout=ANSWER_TIMEOUT_S,
        )
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        return Answer(
            seconds=seconds,
            stages_s=read_stages(answer.headers["Server-Timing"]),
            megapixels=(side_px * scale) ** 2 / 1e6,
            size_bytes=len(answer.content),
        )


def read_stages(header: str) -> dict[str, float]:
    """Seconds by stage of a Server-Timing header."""
    return {
        name: float(milliseconds) / 1000
        for name, milliseconds in re.findall(r"(\w+);dur=([0-9.]+)", header)
    }


PROGRAM = "from upscaled.cli import main; main()"


@contextmanager
def serving(data_dir: Path, *, program: str = PROGRAM, **settings: str) -> Iterator[Server]:
    """`upscaled serve` on a free port of this machine until the block ends.

    Args:
        program: what is run for `upscaled`.
        settings: further `UPSCALED_*` variables, by their whole names. The caller's environment
            gives none.

    Raises:
        ServerFailed: it is not ready in time.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSCALED_")}
    environment = {**kept, **WITHOUT_LIMITS, "UPSCALED_DATA_DIR": str(data_dir), **settings}
    command = [sys.executable, "-c", program]
    key = _make_key(command, environment)
    port = _find_port()
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "serve", "--port", str(port)], env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            try:
                _wait_ready(url, process)
            except ServerFailed as failure:
                log.seek(0)
                raise ServerFailed(f"{failure}\n{log.read()[-2000:]}") from None
            yield Server(url, key, psutil.Process(process.pid), time.perf_counter() - started)
        finally:
            _stop(process)


def _make_key(command: list[str], environment: Mapping[str, str]) -> str:
    answer = subprocess.run(
        [*command, "keys", "create", f"bench-{time.time_ns()}", "--credits", "1000000"],
        env=dict(environment),
        check=True,
        capture_output=True,
        text=True,
    )
    return answer.stdout.split()[-1]


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise ServerFailed(f"the service ended with status {process.returncode}")
        try:
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.1)
    raise ServerFailed(f"the service is not ready after {START_TIMEOUT_S} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
