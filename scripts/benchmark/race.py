"""Parts `kernel` and `sizes`: contestants in turn, round after round, and what follows from it."""

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
    Weights,
    add_general,
    add_random_compact,
    add_x4plus,
)

PACKAGE = "package"
PRECISIONS = ("exact", "auto", "fast")
TYPES = {"cpu": ("float32", "bfloat16", "int8"), "cuda": ("float16", "bfloat16", "int8")}
OTHERS: Mapping[str, Kind] = {"ncnn": "others:Ncnn", PACKAGE: "others:Package"}
SIZED_PX = {X4PLUS: (64, 96, 128, 192, 256), GENERAL: (64, 128, 256, 512)}


def measure_kernel(data_dir: Path, effort: Effort, device: str) -> Figures:
    """Run a race for each official network that is here.

    Returns:
        by the race's name, what `run_race` returns, and where the weights come from.
    """
    is_whole = not effort.is_tiny
    networks = _add_networks(data_dir, effort)
    races = {
        GENERAL: ("general-x4v3", effort.compact_px, effort.compact_rounds, MODEL),
        X4PLUS: ("x4plus", effort.rrdb_px, effort.rrdb_rounds, ""),
    }
    report: Figures = {}
    for network, (name, side_px, rounds, beside) in races.items():
        if weights := networks.get(network):
            ours = Entry("ours:Ours", str(data_dir), weights.model, "", device, side_px, side_px)
            ours = replace(ours, is_tuned=is_whole, is_apart=is_whole)
            entries = enter(ours, beside, is_random=weights.origin == RANDOM)
            figures = run_race(entries | enter_products(device, is_whole=is_whole), rounds)
            report[f"{name} {side_px}x{side_px} x4"] = {"weights": weights.origin} | figures
    return report


def _add_networks(data_dir: Path, effort: Effort) -> dict[str, Weights]:
    """Add the official networks that are here, or one small random one where the effort is tiny."""
    if effort.is_tiny:
        return {GENERAL: add_random_compact(data_dir, num_conv=2, num_feat=8)}
    networks = {X4PLUS: add_x4plus(data_dir), GENERAL: add_general(data_dir)}
    return {name: weights for name, weights in networks.items() if weights}


def measure_sizes(data_dir: Path, effort: Effort) -> Figures:
    """Measure processor seconds of one core, which other programs change little, by size.

    Returns:
        by model, contestant and side in pixels, the faster of two runs, after one to warm up.

    Raises:
        Absent: a contestant is not here, whose curve would be missing in the plot.
    """
    kinds: dict[str, Kind] = {"upscaled": "ours:Ours", **OTHERS}
    is_whole = not effort.is_tiny
    report: Figures = {}
    for network, weights in _add_networks(data_dir, effort).items():
        report[network] = {name: {} for name in kinds}
        for side in SIZED_PX[network] if is_whole else SIZED_PX[network][:1]:
            entry = Entry("ours:Ours", str(data_dir), weights.model, "auto", "cpu", side, side)
            entry = replace(entry, is_tuned=is_whole, cores=1)
            race = run_race({name: replace(entry, kind=kinds[name]) for name in kinds}, rounds=2)
            for name, reason in race["absent"].items():
                raise Absent(f"{name}: {reason}")
            for name, row in race["contestants"].items():
                report[network][name][str(side)] = row["cpu_s"]
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
        "cpu_s": round(min(run.cpu_s for run in runner.runs[1:]), 3),
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
