"""Measure one request over HTTP: its time, the memory it takes, the front end's answers meanwhile.

    .venv/bin/python scripts/measure_request.py [--side 1500] [--scale 4] [--photo FILE]

Starts a service of its own on a free port, with a data folder of its own, upscales one square photo
(a warm-up of 64x64 first) while asking /healthz ten times a second, and stops it. The last line is
one JSON document. Needs `scripts/setup --dev`.
"""

import argparse
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
from PIL import Image

SAMPLE = Path(__file__).resolve().parent / "sample" / "cat.jpg"
START_TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 1800
MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=1500, help="pixels of the square input")
    parser.add_argument("--scale", type=int, choices=(2, 4), default=4)
    parser.add_argument("--photo", type=Path, default=SAMPLE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as data_dir, serve(Path(data_dir)) as (url, key, process):
        idle = memory_mib(process)
        upscale(url, key, make_photo(arguments.photo, 64), arguments.scale)
        photo = make_photo(arguments.photo, arguments.side)
        with watching(url, process) as seen:
            started = time.perf_counter()
            answer = upscale(url, key, photo, arguments.scale)
            seconds = time.perf_counter() - started
    health_ms = sorted(seen["health_ms"])
    print(
        json.dumps(
            {
                "input_px": arguments.side,
                "scale": arguments.scale,
                "seconds": round(seconds, 2),
                "stages": answer.headers["Server-Timing"],
                "result_bytes": len(answer.content),
                "idle_mib": {"front_end": round(idle[0]), "all": round(sum(idle))},
                "peak_mib": round(max(seen["mib"])),
                "healthz_ms": {
                    "median": round(statistics.median(health_ms), 1),
                    "p99": round(health_ms[int(len(health_ms) * 0.99)], 1),
                    "largest": round(health_ms[-1], 1),
                },
            }
        )
    )


def make_photo(path: Path, side_px: int) -> bytes:
    """The photo as a square JPEG of quality 92."""
    with Image.open(path) as photo:
        square = photo.convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    square.save(file, "JPEG", quality=92)
    return file.getvalue()


@contextmanager
def serve(data_dir: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    """A ready service: its URL, an API key, and the front end's process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = str(Path(sys.executable).with_name("upscaled"))
    environment = {**os.environ, "UPSCALED_DATA_DIR": str(data_dir)}
    key = subprocess.run(
        [command, "keys", "create", "measure"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()[-1]
    service = subprocess.Popen(
        [command, "serve", "--port", str(port)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        yield url, key, psutil.Process(service.pid)
    finally:
        service.terminate()
        service.wait()


def wait_ready(url: str) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass  # not listening yet
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{url} is not ready after {START_TIMEOUT_S} s")
        time.sleep(0.2)


def upscale(url: str, key: str, photo: bytes, scale: int) -> requests.Response:
    answer = requests.post(
        f"{url}/v1/upscale",
        headers={"X-API-KEY": key, "Accept": "image/*"},
        files={"image": photo},
        data={"scale": scale},
        timeout=ANSWER_TIMEOUT_S,
    )
    answer.raise_for_status()
    return answer


def memory_mib(process: psutil.Process) -> list[float]:
    """Resident memory of the front end, then of each worker."""
    processes = [process, *process.children(recursive=True)]
    return [each.memory_info().rss / MIB for each in processes]


@contextmanager
def watching(url: str, process: psutil.Process) -> Iterator[dict[str, list[float]]]:
    """Memory of all processes 20 times a second and /healthz 10 times a second, in the block."""
    seen: dict[str, list[float]] = {"mib": [], "health_ms": []}
    is_over = threading.Event()

    def watch_memory() -> None:
        while not is_over.wait(0.05):
            seen["mib"].append(sum(memory_mib(process)))

    def watch_health() -> None:
        with requests.Session() as session:
            while not is_over.wait(0.1):
                started = time.perf_counter()
                session.get(f"{url}/healthz", timeout=60)
                seen["health_ms"].append((time.perf_counter() - started) * 1000)

    threads = [threading.Thread(target=each) for each in (watch_memory, watch_health)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
