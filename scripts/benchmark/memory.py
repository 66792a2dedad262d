"""Part (e): the memory of all processes of the service together, and of the device."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import requests

from scripts.benchmark.effort import Effort
from scripts.benchmark.load import percentile
from scripts.benchmark.machine import Facts
from scripts.benchmark.server import Server

MIB = 2**20
PERIOD_S = 0.05
DEVICE_PERIOD_S = 0.5
IDLE_S = 1.0


@dataclass
class Seen:
    """What was seen during a block. pss_mib: memory shared by processes is counted once in it."""

    rss_mib: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)
    device_mib: list[float] = field(default_factory=list)


def measure_memory(server: Server, effort: Effort, device: str) -> Facts:
    """One large image on a service that is fresh, and the front end's answers meanwhile."""
    with watching(server, is_on_device=False) as idle:
        time.sleep(IDLE_S if not effort.is_tiny else 4 * PERIOD_S)
    with watching(server, is_on_device=device == "cuda") as seen:
        answer = server.upscale(effort.poster_px)
    (front_end,) = server.process.children()
    front_end_mib = front_end.memory_info().rss / MIB
    return {
        "side_px": effort.poster_px,
        "seconds": round(answer.seconds, 3),
        "idle": {"rss_mib": round(max(idle.rss_mib)), "pss_mib": _largest(idle.pss_mib)},
        "front_end_rss_mib": round(front_end_mib),
        "peak_rss_mib": round(max(seen.rss_mib)),
        "peak_pss_mib": _largest(seen.pss_mib),
        "most_processes": max(seen.processes),
        "healthz_ms": {
            "p50": round(percentile(seen.health_ms, 0.5), 1),
            "p99": round(percentile(seen.health_ms, 0.99), 1),
        },
        "peak_device_mib": _largest(seen.device_mib) if seen.device_mib else None,
    }


@contextmanager
def watching(server: Server, *, is_on_device: bool) -> Iterator[Seen]:
    """Memory of all processes 20 times a second, `/healthz` 10 times a second, in the block."""
    seen = Seen()
    is_over = threading.Event()

    def watch_memory() -> None:
        while True:
            _note_memory(server.process, seen)
            if is_over.wait(PERIOD_S):
                return

    def watch_health() -> None:
        with requests.Session() as session:
            while True:
                started = time.perf_counter()
                session.get(f"{server.url}/healthz", timeout=60)
                seen.health_ms.append((time.perf_counter() - started) * 1000)
                if is_over.wait(2 * PERIOD_S):
                    return

    def watch_device() -> None:
        while not is_over.wait(DEVICE_PERIOD_S):
            seen.device_mib.append(device_mib())

    tasks = [watch_memory, watch_health, *([watch_device] if is_on_device else [])]
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def device_mib() -> float:
    """Memory in use on the first GPU, by everyone."""
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(answer.stdout.partition("\n")[0])


def _note_memory(supervisor: psutil.Process, seen: Seen) -> None:
    rss = pss = 0.0
    count = 0
    for process in (supervisor, *supervisor.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # decoders come and go
            memory = process.memory_full_info()
            rss += memory.rss / MIB
            pss += getattr(memory, "pss", memory.rss) / MIB
            count += 1
    seen.rss_mib.append(rss)
    seen.pss_mib.append(pss)
    seen.processes.append(count)


def _largest(values: list[float]) -> int:
    return round(max(values))
