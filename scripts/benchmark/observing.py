"""What figures and log cost one small request: `python -m scripts.benchmark.observing`.

One service (`scripts.benchmark.hushed`) is asked in pairs, once as ever and once without all
counting, timing and logging, in an order that alternates: whatever else the machine does meets
both. On a busy machine the difference may be lost in noise, so the work itself is timed too: all
that the front end and the worker do of it for one request.
"""

import argparse
import json
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from scripts.benchmark.hushed import HEADER
from scripts.benchmark.pictures import make_jpeg
from scripts.benchmark.server import Server, serving
from upscaled.api.telemetry.access_log import AccessRecord, log_request
from upscaled.api.telemetry.metrics import Metrics
from upscaled.logs import JsonFormatter
from upscaled.pool.executor import StageTimes
from upscaled.pool.stats import ModelStats
from upscaled.worker.stats import Counters

SIDE_PX = 64
WARM_UP_PAIRS = 20
HUSHED = "from scripts.benchmark.hushed import serve; serve()"
MUST_BE_BELOW = 0.01
RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, say it in words, and as one JSON document in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1000)
    pairs = parser.parse_args(arguments).pairs
    work_us = time_the_work(20_000)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        serving(Path(folder), program=HUSHED) as server,
    ):
        told_s, hushed_s = ask_in_pairs(server, pairs)
    report = compare(told_s, hushed_s)
    report |= {"work_us": round(work_us, 1), "share": round(work_us / report["hushed_us"], 5)}
    print(
        f"{SIDE_PX}x{SIDE_PX} at x4, {pairs} pairs: median {report['hushed_us'] / 1000:.2f} ms "
        f"without figures and log; with them {report['difference']:+.2%} "
        f"(95 %: {report['low']:+.2%} to {report['high']:+.2%})"
    )
    verdict = "below" if report["share"] < MUST_BE_BELOW else "NOT below"
    print(f"their work itself: {work_us:.0f} us, {report['share']:.2%}: {verdict} 1 %")
    print(json.dumps(report))


def ask_in_pairs(server: Server, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of each answer, pair by pair: as ever, and hushed."""
    photo = make_jpeg(SIDE_PX, SIDE_PX)
    told_s: list[float] = []
    hushed_s: list[float] = []
    with requests.Session() as session:
        for number in range(WARM_UP_PAIRS + pairs):
            kinds: list[tuple[list[float], dict[str, str]]] = [
                (told_s, {}),
                (hushed_s, {HEADER: "1"}),
            ]
            for seconds, headers in kinds if number % 2 else kinds[::-1]:
                session.headers.pop(HEADER, None)
                session.headers.update(headers)
                seconds.append(server.send(photo, SIDE_PX, session=session).seconds)
    return told_s[WARM_UP_PAIRS:], hushed_s[WARM_UP_PAIRS:]


def compare(told_s: Sequence[float], hushed_s: Sequence[float]) -> dict[str, float]:
    """The median of the pairs' differences, as a share of the hushed median, and its 95 %."""
    hushed_us = statistics.median(hushed_s) * 1e6
    differences = [
        (told - hushed) * 1e6 / hushed_us for told, hushed in zip(told_s, hushed_s, strict=True)
    ]
    chance = random.Random(1)  # noqa: S311  (no secret)
    medians = sorted(
        statistics.median(chance.choices(differences, k=len(differences))) for _ in range(RESAMPLES)
    )
    return {
        "hushed_us": round(hushed_us, 1),
        "difference": round(statistics.median(differences), 5),
        "low": round(medians[RESAMPLES // 40], 5),
        "high": round(medians[-RESAMPLES // 40], 5),
    }


def time_the_work(count: int) -> float:
    """Microseconds of one small request's counting, timing and logging, the worker's included."""
    metrics, counters = Metrics(), Counters()
    with logging_to_a_file("upscaled.api.telemetry.access_log"):
        for _ in range(500):
            _observe_one(metrics, counters)
        begun = time.process_time()
        for _ in range(count):
            _observe_one(metrics, counters)
        return (time.process_time() - begun) / count * 1e6


@contextmanager
def logging_to_a_file(name: str) -> Iterator[None]:
    """One logger writes JSON into a file, as a service's does, for the time of the block."""
    logger = logging.getLogger(name)
    before = (logger.level, logger.propagate)
    with tempfile.TemporaryFile("w") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before[0])
            logger.propagate = before[1]


def _observe_one(metrics: Metrics, counters: Counters) -> None:
    record = AccessRecord("6f5ab457-6f35-466d-b309-7a95d5b95a70", "POST", "/v1/upscale", 200)
    record.key_name, record.scale, record.source = "first", 4, "upload"
    with record.timing("receive"):
        record.source_bytes, record.width_px, record.height_px = 2_000, SIDE_PX, SIDE_PX
    record.format, record.model, record.engine = "JPEG", "upscaled-x4", "openvino bfloat16"
    record.note_work(time.perf_counter(), StageTimes(0.0001, 0.001, 0.005, 0.001))
    record.result_bytes, record.result_width_px, record.result_height_px = 30_000, 256, 256
    batch = ModelStats(batches=1, windows=1, slots=4, trunk_px=4096, device_s=0.005)
    counters.add("upscaled-x4", batch)
    with record.timing("store"):
        metrics.note_stored(30_000)
    record.end()
    metrics.observe(record)
    log_request(record)


if __name__ == "__main__":
    main()
