"""Part (a) and (b): the network itself, against the published package, ncnn and the peak."""

from pathlib import Path

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Facts
from scripts.benchmark.race import PEAK, Race, open_apart, open_here, run_race
from scripts.benchmark.weights import (
    X4PLUS,
    Weights,
    add_general,
    add_packaged,
    add_rrdb,
    add_small_compact,
    is_random,
)

PRECISIONS = ("exact", "auto", "fast")
TYPES = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float16", "bfloat16", "int8")}
PACKAGE, NCNN = "package", "ncnn"
DEFAULT_MODEL = "upscaled-x4"


def measure_kernel(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Facts:
    """Both races: by their name, what `run_race` returns, and where the weights come from."""
    opened = open_apart if effort.is_apart else open_here
    if effort.is_tiny:
        compact, rrdb = add_small_compact(data_dir), add_rrdb(data_dir, num_block=1)
    else:
        compact = add_general(data_dir, general)
        rrdb = add_packaged(data_dir, X4PLUS) or add_rrdb(data_dir)
    races = (
        ("general-x4v3", compact, effort.compact_px, effort.compact_rounds, DEFAULT_MODEL),
        ("x4plus", rrdb, effort.rrdb_px, effort.rrdb_rounds, None),
    )
    report: Facts = {}
    for name, weights, side_px, rounds, beside in races:
        race = make_race(data_dir, weights, side_px, device, beside, is_tiny=effort.is_tiny)
        facts = {"weights": weights.origin, **run_race(race, rounds, opened)}
        report[f"{name} {side_px}x{side_px} x4"] = facts
    return report


def measure_peak(effort: Effort, device: str) -> Facts:
    """The matrix products alone: GFLOP/s by type."""
    race = Race(_products(device, is_tiny=effort.is_tiny), against="")
    facts = run_race(race, effort.compact_rounds, open_apart if effort.is_apart else open_here)
    return {"contestants": facts["contestants"], "absent": facts["absent"]}


def make_race(
    data_dir: Path,
    weights: Weights,
    side_px: int,
    device: str,
    beside: str | None,
    *,
    is_tiny: bool = False,
) -> Race:
    """One network everywhere, and the model that ships (`beside`) against the same package."""

    def enter(kind: str, model: str, precision: str = "") -> Entry:
        return Entry(
            kind,  # type: ignore[arg-type]
            data_dir=str(data_dir),
            model=model,
            precision=precision,
            device=device,
            height_px=side_px,
            width_px=side_px,
            is_tuned=not is_tiny,
        )

    entries = {
        PACKAGE: enter("package", weights.model),
        NCNN: enter("ncnn", weights.model),
    }
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
    return {
        PEAK + dtype: Entry("matmul", precision=dtype, device=device, height_px=int(is_tiny))
        for dtype in TYPES[device]
    }
