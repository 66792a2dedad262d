"""README's plot: seconds by size of the picture, of ours, ncnn and the published package.

    .venv/bin/python -m scripts.benchmark.sizes [--measure]

Draws the recorded figures. `--measure` takes them anew on this machine, in processor seconds of one
core, which other programs change little, and prints them in the form in which they are recorded.
"""

import argparse
import os
import pprint
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.benchmark.plot import Panel, draw
from scripts.benchmark.report import DOCS

PLOT = DOCS / "performance" / "sizes.svg"
GENERAL, X4PLUS = "realesr-general-x4v3", "realesrgan-x4plus"
SIDES_PX = {X4PLUS: (64, 96, 128, 192, 256), GENERAL: (64, 128, 256, 512)}
RUNS = 2

Figures = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Seconds by model, by contestant and by the side of the picture in pixels."""

RECORDED: Figures = {
    X4PLUS: {
        "upscaled": {64: 0.432, 96: 0.962, 128: 1.7, 192: 3.81, 256: 7.35},
        "ncnn": {64: 0.837, 96: 2.0, 128: 3.85, 192: 8.83, 256: 14.5},
        "package": {64: 1.61, 96: 4.22, 128: 7.43, 192: 16.9, 256: 34.5},
    },
    GENERAL: {
        "upscaled": {64: 0.047, 128: 0.186, 256: 0.761, 512: 3.27},
        "ncnn": {64: 0.044, 128: 0.194, 256: 1.0, 512: 4.18},
        "package": {64: 0.113, 128: 0.455, 256: 1.71, 512: 11.5},
    },
}
"""One core of an AMD EPYC with AVX-512, November 2026, with the same weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure, and print the figures")
    if parser.parse_args().measure:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        pprint.pp(_measure(), width=100)
    else:
        PLOT.write_text(draw_sizes(RECORDED))


def draw_sizes(figures: Figures) -> str:
    """Draw one panel for each model, the seconds on a logarithmic axis."""
    return draw(
        [
            Panel(
                f"{model} at x4: seconds of one core",
                "side of the square picture, px",
                {
                    name: {str(side): seconds for side, seconds in curve.items()}
                    for name, curve in curves.items()
                },
                is_log=True,
            )
            for model, curves in figures.items()
        ]
    )


def _measure() -> Figures:
    """Run each contestant on each size; the faster of two runs, after one to warm up."""
    from scripts.benchmark.contestant import Entry, Kind, open_here  # after the core is chosen
    from scripts.benchmark.weights import add_general, add_packaged

    kinds: Mapping[str, Kind] = {"upscaled": "ours", "ncnn": "ncnn", "package": "package"}
    figures: dict[str, dict[str, dict[int, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        added = {
            X4PLUS: add_packaged(Path(folder), X4PLUS),
            GENERAL: add_general(Path(folder), None),
        }
        for model, weights in added.items():
            if weights is None:
                continue
            figures[model] = {name: {} for name in kinds}
            for name, kind in kinds.items():
                for side in SIDES_PX[model]:
                    entry = Entry(kind, folder, weights.model, "auto", "cpu", side, side)
                    with open_here(entry) as runner:
                        runner.run_once()
                        seconds = []
                        for _ in range(RUNS):
                            started = time.process_time()
                            runner.run_once()
                            seconds.append(time.process_time() - started)
                    figures[model][name][side] = round(min(seconds), 3)
    return figures


if __name__ == "__main__":
    main()
