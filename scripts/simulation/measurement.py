"""Measure what a picture costs on this machine, or read what `scripts/bench http` measured."""

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import psutil
import requests

from scripts.benchmark.effort import SCALE
from scripts.benchmark.pictures import make_picture
from scripts.benchmark.server import Server, read_stages, serving
from scripts.simulation.plan import BadPlan, Costs

SIDES_PX: Final = (64, 128, 256, 512, 1024, 1500)
TRIES_S: Final = 5.0
"""Time for each size: enough for many small ones, whose processor time is counted in ticks."""

_MOST_TRIES: Final = 40
_WORKERS_STAGES: Final = ("decode", "network", "encode")
_ANSWER_TIMEOUT_S: Final = 600

FRONT_END_S: Final = (0.007, 0.018)
BYTES_PER_PX: Final = 0.2
"""Processor seconds and bytes of a result where none are measured: see the page on machines."""


class MeasuredSize(NamedTuple):
    """Medians of pictures of one size; moved_megabytes: of the file and its result."""

    px: float
    work_s: float
    front_end_s: float
    moved_megabytes: float
    result_bytes_per_px: float


def measure_costs(
    model: str,
    sides_px: Sequence[int] = SIDES_PX,
    for_s: float = TRIES_S,
    *,
    is_tuned: bool = True,
) -> Costs:
    """Measure pictures of several sizes, one after another, on a service of the measurement's own.

    Args:
        model: what serves both scales: a name, or "auto" as the service does out of the box.
        for_s: seconds for each size.
        is_tuned: whether the service measures first how its models are fastest here.
    """
    settings = {"UPSCALED_MODEL_X4": model, "UPSCALED_MODEL_X2": model}
    settings["UPSCALED_TUNING"] = str(is_tuned).lower()
    with (
        tempfile.TemporaryDirectory(prefix="capacity-") as folder,
        serving(Path(folder), settings) as server,
    ):
        sizes = [_measure_size(server, side, for_s) for side in sides_px]
    return fit_costs(sizes)


def fit_costs(sizes: Sequence[MeasuredSize]) -> Costs:
    """Make costs of measured sizes; the front end's are the best line through its seconds."""
    megabytes = np.array([size.moved_megabytes for size in sizes])
    seconds = np.array([size.front_end_s for size in sizes])
    each = np.vstack([np.ones_like(megabytes), megabytes]).T
    for_each_s, per_megabyte_s = np.linalg.lstsq(each, seconds, rcond=None)[0]
    return Costs(
        seconds_by_px=tuple((size.px, size.work_s) for size in sizes),
        front_end_s=(max(0.0, float(for_each_s)), max(0.0, float(per_megabyte_s))),
        bytes_per_px=statistics.median(size.result_bytes_per_px for size in sizes),
    )


def _measure_size(server: Server, side_px: int, for_s: float) -> MeasuredSize:
    print(f"measuring: {side_px}x{side_px}", file=sys.stderr, flush=True)
    photo = make_picture(side_px)
    (front_end,) = server.process.children()
    with requests.Session() as session:
        _send(server, photo, session)
        before_s, until_s = _used_s(front_end), time.monotonic() + for_s
        answers = [_send(server, photo, session)]
        while time.monotonic() < until_s and len(answers) < _MOST_TRIES:
            answers.append(_send(server, photo, session))
    used_s = (_used_s(front_end) - before_s) / len(answers)
    work_s, result_bytes = (statistics.median(each) for each in zip(*answers, strict=True))
    result_px = (side_px * SCALE) ** 2
    moved_megabytes = (len(photo) + result_bytes) / 1e6
    return MeasuredSize(side_px**2, work_s, used_s, moved_megabytes, result_bytes / result_px)


def _send(server: Server, photo: bytes, session: requests.Session) -> tuple[float, float]:
    """Upscale to a URL and fetch it, as clients of the contract do; return work and bytes."""
    answer = session.post(
        f"{server.url}/v1/upscale",
        headers={"X-API-KEY": server.key},
        files={"image": photo},
        data={"scale": SCALE},
        timeout=_ANSWER_TIMEOUT_S,
    )
    answer.raise_for_status()
    stages_s = read_stages(answer.headers["Server-Timing"])
    result = session.get(answer.json()["result_url"], timeout=_ANSWER_TIMEOUT_S)
    result.raise_for_status()
    return sum(stages_s[stage] for stage in _WORKERS_STAGES), len(result.content)


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def read_bench(report: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
    """Read pixels and seconds of single requests out of the last line of `scripts/bench http`.

    Raises:
        BadPlan: the report has no such part.
    """
    try:
        alone = report["http"]["alone"]
        return [(float(side) ** 2, float(alone[side]["p50_s"])) for side in alone]
    except (KeyError, TypeError):
        raise BadPlan("the report has no http.alone: it is of `scripts/bench http`") from None
