"""Read the mix of pictures and their rate from the service's access log."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np

from scripts.simulation.plan import BadPlan, Pictures

_BUSIEST_OF_S: Final = 3600
"""The rate is that of the busiest hour: machines for the mean of a day would refuse at noon."""

_NEEDED: Final = ("width_px", "height_px", "scale", "source_bytes", "result_bytes")


class Observed(NamedTuple):
    """Pictures of a log, and how many came in its busiest hour."""

    pictures: Pictures
    images_per_hour: float


def read_log(lines: Iterable[str]) -> Observed:
    """Read the images that were delivered, of a log of JSON lines; other lines are passed over.

    A log of less than an hour is taken for as long as it is.

    Raises:
        BadPlan: it has too few of them.
    """
    delivered = [record for line in lines if (record := _delivered(line)) is not None]
    if len(delivered) < 2:
        raise BadPlan("the log has fewer than two delivered images (UPSCALED_LOG_FORMAT=json?)")
    table = np.array([[float(record[name]) for name in _NEEDED] for record in delivered])
    width_px, height_px, scale, source_bytes, result_bytes = table.T
    times_s = np.sort([datetime.fromisoformat(record["time"]).timestamp() for record in delivered])
    pictures = Pictures(width_px * height_px, scale, source_bytes, result_bytes)
    return Observed(pictures, _busiest_per_hour(times_s))


def _delivered(line: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_delivery = isinstance(record, dict) and record.get("outcome") == "ok"
    return record if is_delivery and all(record.get(name) for name in _NEEDED) else None


def _busiest_per_hour(times_s: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    spans_s = max(float(times_s[-1] - times_s[0]), 1.0)
    if spans_s < _BUSIEST_OF_S:
        return len(times_s) / spans_s * _BUSIEST_OF_S
    ends = np.searchsorted(times_s, times_s + _BUSIEST_OF_S)
    return float((ends - np.arange(len(times_s))).max())
