"""Measure the parts `avatars` and `divided`: pictures in a batch, and a divided processor."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.ours import settings_of
from scripts.benchmark.pictures import make_jpeg, make_pixels
from scripts.benchmark.server import Server
from scripts.benchmark.service import AVATAR_PX, percentile
from scripts.benchmark.weights import add_packaged, add_random_compact
from upscaled.upscale.engines import open_model
from upscaled_models.backends.base import Engine, Window

LARGE_MODEL = "realesrgan-x4plus"
DIVISIONS = {"whole": "cpu", "divided": "cpu,cpu"}
LARGE_CLIENTS = 2
PARTS_OF_BATCH = {"fast": 1, "exact": 4}
"""In 8 bits, and in float32 a quarter of the pictures, which take as long."""


def measure_avatars(data_dir: Path, effort: Effort, device: str) -> Figures:
    """Compute small pictures as one batch and one after the other, in turns and in both orders.

    `ratio`: of the batch's seconds to the others', the median of rounds; of processor seconds
    where a processor computes, which other programs change little.
    """
    weights = None if effort.is_tiny else add_packaged(data_dir, LARGE_MODEL)
    weights = weights or add_random_compact(data_dir, num_conv=2, num_feat=8)
    clock = time.perf_counter if device == "cuda" else time.process_time
    side_px, count = effort.avatar_px, effort.avatar_batch
    rows = make_pixels(side_px, side_px + count)
    pictures: list[Window] = [rows[:, at : at + side_px].copy() for at in range(count)]
    ratios: dict[str, Figures] = {}
    for precision, parts in PARTS_OF_BATCH.items():
        entry = Entry("ours", str(data_dir), weights.model, precision, device)
        engine = open_model(settings_of(entry), weights.model)
        few = pictures[: max(2, count // parts)]
        ratio = _compare(engine, few, effort.avatar_rounds, clock)
        ratios[engine.info.label] = {"images": len(few), "ratio": ratio}
    return {"model": weights.model, "side_px": side_px, "by_engine": ratios}


def _compare(
    engine: Engine, pictures: Sequence[Window], rounds: int, clock: Callable[[], float]
) -> float:
    def run(size: int) -> float:
        started = clock()
        for at in range(0, len(pictures), size):
            engine.start(pictures[at : at + size]).finish()
        return clock() - started

    sizes = [len(pictures), 1]
    for size in sizes:
        engine.start(pictures[:size]).finish()  # compiles what is made anew for a shape
    ratios = []
    for at in range(rounds):
        seconds = {size: run(size) for size in sizes[:: 1 if at % 2 == 0 else -1]}
        ratios.append(seconds[len(pictures)] / max(seconds[1], 1e-9))
    return round(statistics.median(ratios), 3)


def measure_divided(
    serve: Callable[[str], AbstractContextManager[Server]], effort: Effort
) -> Figures:
    """Measure a mixed load on one worker on all cores, then on two on halves of them.

    Two clients send large pictures, and a third one small pictures meanwhile. Processor seconds
    are those of the whole service for each large picture: unlike wall time they hardly depend on
    other programs on the same cores.

    Args:
        serve: runs a service with this `UPSCALED_DEVICE`.
    """
    figures: dict[str, Figures] = {}
    for name, device in DIVISIONS.items():
        with serve(device) as server:
            figures[name] = _send_mixture(server, effort)
    whole, divided = (figures[name] for name in DIVISIONS)
    names = ("large_s", "cpu_s", "small_p95_s")
    ratios = {name: round(float(str(divided[name])) / float(str(whole[name])), 3) for name in names}
    return {"small_px": AVATAR_PX, "large_px": effort.poster_px, **figures, "ratios": ratios}


def _send_mixture(server: Server, effort: Effort) -> Figures:
    side_px, count = effort.poster_px, effort.divided_posters
    small = make_jpeg(AVATAR_PX, AVATAR_PX)
    server.send_all([side_px, side_px, AVATAR_PX, AVATAR_PX], LARGE_CLIENTS)
    before_s, latencies = _cpu_s(server.process), []
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(server.send_all, [side_px] * count, LARGE_CLIENTS)
        while not large.done():
            latencies.append(server.send(small, AVATAR_PX).seconds)
        _, seconds = large.result()
    return {
        "large_s": round(seconds / count, 3),
        "cpu_s": round((_cpu_s(server.process) - before_s) / count, 3),
        "small_p95_s": round(percentile(latencies, 95), 4),
        "small_images": len(latencies),
    }


def _cpu_s(supervisor: psutil.Process) -> float:
    """Add up the processor seconds of a service's processes."""
    family = (supervisor, *supervisor.children(recursive=True))
    return sum(sum(process.cpu_times()[:2]) for process in family)
