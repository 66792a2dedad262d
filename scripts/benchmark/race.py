"""Parts `kernel` and `peak`: contestants in turn, round after round, and what follows from it."""

import itertools
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from scripts.benchmark.contestant import PEAK, Absent, Entry, Kind, Runner, open_contestant
from scripts.benchmark.effort import MODEL, Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.weights import (
    GENERAL,
    RANDOM,
    X4PLUS,
    add_general,
    add_official,
    add_random_compact,
)

PACKAGE = "package"
PRECISIONS = ("exact", "auto", "fast")
TYPES = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float16", "bfloat16", "int8")}
OTHERS: Mapping[str, Kind] = {"ncnn": "others:Ncnn", PACKAGE: "others:Package"}
SIZED_PX = {X4PLUS: (64, 96, 128, 192, 256), GENERAL: (64, 128, 256, 512)}


def measure_kernel(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Figures:
    """Run a race for each official network that is here.

    Returns:
        by the race's name, what `run_race` returns, and where the weights come from.
    """
    is_whole = not effort.is_tiny
    if effort.is_tiny:
        compact, rrdb = add_random_compact(data_dir, num_conv=2, num_feat=8), None
    else:
        compact, rrdb = add_general(data_dir, general), add_official(data_dir, X4PLUS)
    races = (
        ("general-x4v3", compact, effort.compact_px, effort.compact_rounds, MODEL),
        ("x4plus", rrdb, effort.rrdb_px, effort.rrdb_rounds, ""),
    )
    report: Figures = {}
    for name, weights, side_px, rounds, beside in races:
        if weights is not None:
            ours = Entry("ours:Ours", str(data_dir), weights.model, "", device, side_px, side_px)
            ours = replace(ours, is_tuned=is_whole, is_apart=is_whole)
            entries = enter(ours, beside, is_random=weights.origin == RANDOM)
            figures = run_race(entries | enter_products(device, is_whole=is_whole), rounds)
            report[f"{name} {side_px}x{side_px} x4"] = {"weights": weights.origin} | figures
    return report


def measure_peak(effort: Effort, device: str) -> Figures:
    """Measure the matrix products alone: GFLOP/s by type."""
    return run_race(enter_products(device, is_whole=not effort.is_tiny), effort.compact_rounds)


def measure_sizes(data_dir: Path, effort: Effort, general: Path | None) -> Figures:
    """Measure processor seconds of one core, which other programs change little, by size.

    Returns:
        by model, contestant and side in pixels, the faster of two runs, after one to warm up.
    """
    if effort.is_tiny:
        added = {GENERAL: add_random_compact(data_dir, num_conv=2, num_feat=8)}
    else:
        official = {X4PLUS: add_official(data_dir, X4PLUS), GENERAL: add_general(data_dir, general)}
        added = {name: weights for name, weights in official.items() if weights}
    report: Figures = {}
    for model, weights in added.items():
        kinds: dict[str, Kind] = {"upscaled": "ours:Ours", **OTHERS}
        curves: dict[str, dict[str, float]] = {name: {} for name in kinds}
        for (name, kind), side in itertools.product(
            kinds.items(), SIZED_PX[model][: 1 if effort.is_tiny else None]
        ):
            entry = Entry(kind, str(data_dir), weights.model, "auto", "cpu", side, side, cores=1)
            entry = replace(entry, is_tuned=not effort.is_tiny)
            with open_contestant(entry) as runner:
                for _ in range(3):
                    runner.run_once()
            curves[name][str(side)] = round(min(run.cpu_s for run in runner.runs[1:]), 3)
        report[model] = curves
    return report


def enter(ours: Entry, beside: str, *, is_random: bool) -> dict[str, Entry]:
    """Enter one network everywhere, and ours that ships (`beside`) against the same package."""
    entries = {name: replace(ours, kind=OTHERS[name], truth="exact") for name in (PACKAGE, "ncnn")}
    # Random weights have no file of 8 bits: `fast` would only be `auto` once more.
    own = PRECISIONS[:-1] if is_random else PRECISIONS
    for prefix, model, precisions in (("", ours.model, own), ("default ", beside, PRECISIONS)):
        for precision in precisions if model else ():
            truth = "" if precision == "exact" else f"{prefix}exact"
            entry = replace(ours, model=model, precision=precision, truth=truth)
            entries[prefix + precision] = entry
    return entries


def enter_products(device: str, *, is_whole: bool) -> dict[str, Entry]:
    entry = Entry("others:Matmul", device=device, is_tuned=is_whole, is_apart=is_whole)
    return {PEAK + dtype: replace(entry, precision=dtype) for dtype in TYPES[device]}


def run_race(
    entries: Mapping[str, Entry],
    rounds: int,
    opened: Callable[[Entry], AbstractContextManager[Runner]] = open_contestant,
) -> Figures:
    """Run every contestant `rounds` times, one at a time, after a run to warm up.

    Every other round goes backwards: what runs after what is then no matter. One that dies on the
    way is absent from then on; the others' figures stand without it.
    """
    runners: dict[str, Runner] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for at in range(1 + rounds):  # the first warms up
            names = [name for name in entries if name not in absent]
            for name in names if at % 2 or not at else reversed(names):
                try:
                    if at == 0:
                        runners[name] = stack.enter_context(opened(entries[name]))
                    runners[name].run_once()
                except Absent as reason:
                    absent[name] = str(reason)
                    runners.pop(name, None)
            print(f"  round {at} of {rounds}", file=sys.stderr, flush=True)
    rows = {name: _describe(name, runners, entries[name].truth) for name in runners}
    return {"contestants": rows, "absent": absent}


def _describe(name: str, runners: Mapping[str, Runner], truth: str) -> Figures:
    """Return times, rate and share of the machine's own peak; speed-up and likeness of pictures."""
    runner = runners[name]
    fastest_s = min(runner.seconds)
    row: Figures = {
        "label": runner.label,
        "fastest_s": round(fastest_s, 5),
        "median_s": round(statistics.median(runner.seconds), 5),
        "gflop": round(runner.gflop, 3),
        "gflop_per_s": round(runner.gflop_per_s, 2),
    }
    if name.startswith(PEAK):
        return row
    if peak := runners.get(PEAK + runner.label.rpartition(" ")[2]):
        row["share_of_peak"] = round(runner.gflop_per_s / peak.gflop_per_s, 4)
    if name != PACKAGE and PACKAGE in runners:
        row["speed_up"] = round(min(runners[PACKAGE].seconds) / fastest_s, 3)
    picture = runner.runs[-1].picture
    exact = runners[truth].runs[-1].picture if truth in runners else None
    if picture is not None and exact is not None:
        is_equal = np.array_equal(picture, exact)  # there is no ratio to a noise of 0
        row["psnr_db"] = None if is_equal else round(cv2.PSNR(picture, exact), 2)
        row["largest_levels"] = int(cv2.absdiff(picture, exact).max())
    return row
