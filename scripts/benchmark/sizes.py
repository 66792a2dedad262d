"""README's plot: seconds by size of the picture, of ours, ncnn and the published package.

    .venv/bin/python -m scripts.benchmark.sizes [--measure]

Draws the figures of `sizes.json`: of one core of an AMD EPYC with AVX-512, November 2026, and with
the same weights. `--measure` first takes them anew on this machine, in processor seconds of one
core, which other programs change little.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.benchmark.plot import Panel, draw
from scripts.benchmark.report import DOCS

PLOT = DOCS / "performance" / "sizes.svg"
RECORDED = Path(__file__).with_name("sizes.json")
GENERAL, X4PLUS = "realesr-general-x4v3", "realesrgan-x4plus"
SIDES_PX = {X4PLUS: (64, 96, 128, 192, 256), GENERAL: (64, 128, 256, 512)}
RUNS = 2

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Seconds by model, by contestant and by the side of the picture in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure, and record the figures")
    if parser.parse_args().measure:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        RECORDED.write_text(json.dumps(_measure(), indent=2) + "\n")
    PLOT.write_text(draw_sizes(json.loads(RECORDED.read_text())))


def draw_sizes(figures: Figures) -> str:
    """Draw one panel for each model, the seconds on a logarithmic axis."""
    axis = "side of the square picture, px"
    return draw(
        [
            Panel(f"{model} at x4: seconds of one core", axis, curves, is_log=True)
            for model, curves in figures.items()
        ]
    )


def _measure() -> Figures:
    """Run each contestant on each size; the faster of two runs, after one to warm up."""
    from scripts.benchmark.contestant import Entry, Kind, open_here  # after the core is chosen
    from scripts.benchmark.weights import add_general, add_packaged

    kinds: Mapping[str, Kind] = {"upscaled": "ours", "ncnn": "ncnn", "package": "package"}
    figures: dict[str, dict[str, dict[str, float]]] = {}
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
                    figures[model][name][str(side)] = round(min(seconds), 3)
    return figures


if __name__ == "__main__":
    main()
