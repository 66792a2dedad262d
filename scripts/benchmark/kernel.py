"""Parts `kernel` and `peak`: one network against the published package, ncnn and the peak."""

from dataclasses import replace
from pathlib import Path

from scripts.benchmark.contestant import Entry, Kind, open_apart, open_here
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.race import PEAK, Race, run_race
from scripts.benchmark.weights import (
    X4PLUS,
    Weights,
    add_general,
    add_packaged,
    add_random_compact,
    is_random,
)

PRECISIONS = ("exact", "auto", "fast")
TYPES = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float16", "bfloat16", "int8")}
PACKAGE, NCNN = "package", "ncnn"
DEFAULT_MODEL = "upscaled-x4"


def measure_kernel(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Figures:
    """Run a race for each official network that is here.

    Returns:
        by the race's name, what `run_race` returns, and where the weights come from.
    """
    if effort.is_tiny:
        compact, rrdb = add_random_compact(data_dir, num_conv=2, num_feat=8), None
    else:
        compact, rrdb = add_general(data_dir, general), add_packaged(data_dir, X4PLUS)
    races = (
        ("general-x4v3", compact, effort.compact_px, effort.compact_rounds, DEFAULT_MODEL),
        ("x4plus", rrdb, effort.rrdb_px, effort.rrdb_rounds, None),
    )
    report: Figures = {}
    for name, weights, side_px, rounds, beside in races:
        if weights is not None:
            race = make_race(data_dir, weights, side_px, device, beside, is_tiny=effort.is_tiny)
            figures = run_race(race, rounds, open_here if effort.is_tiny else open_apart)
            report[f"{name} {side_px}x{side_px} x4"] = {"weights": weights.origin} | figures
    return report


def measure_peak(effort: Effort, device: str) -> Figures:
    """Measure the matrix products alone: GFLOP/s by type."""
    race = Race(_products(device, is_tiny=effort.is_tiny), against="")
    return run_race(race, effort.compact_rounds, open_here if effort.is_tiny else open_apart)


def make_race(
    data_dir: Path,
    weights: Weights,
    side_px: int,
    device: str,
    beside: str | None,
    *,
    is_tiny: bool = False,
) -> Race:
    """Enter one network everywhere, and ours that ships (`beside`) against the same package."""

    def enter(kind: Kind, model: str, precision: str = "") -> Entry:
        return Entry(
            kind, str(data_dir), model, precision, device, side_px, side_px, is_tuned=not is_tiny
        )

    entries = {PACKAGE: enter("package", weights.model), NCNN: enter("ncnn", weights.model)}
    exact = {PACKAGE: "exact", NCNN: "exact"}
    # Random weights have no file of 8 bits: `fast` would only be `auto` once more.
    own = PRECISIONS[:-1] if is_random(weights.model) else PRECISIONS
    for prefix, model, precisions in (("", weights.model, own), ("default ", beside, PRECISIONS)):
        for precision in precisions if model else ():
            name = prefix + precision
            entries[name] = enter("ours", str(model), precision)
            if precision != "exact":
                exact[name] = f"{prefix}exact"
    return Race(entries | _products(device, is_tiny=is_tiny), against=PACKAGE, exact=exact)


def _products(device: str, *, is_tiny: bool) -> dict[str, Entry]:
    entry = Entry("matmul", device=device, height_px=int(is_tiny))
    return {PEAK + dtype: replace(entry, precision=dtype) for dtype in TYPES[device]}
