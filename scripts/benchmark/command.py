"""The command line of scripts/bench."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from scripts.benchmark.effort import CUDA, FULL, MODEL, QUICK, Effort
from scripts.benchmark.machine import Figures, describe_machine
from scripts.benchmark.report import DOCS, to_table, write_into_page, write_sizes

ON_THE_SERVICE = ("memory", "http", "cold")
PARTS = ("kernel", "batch", *ON_THE_SERVICE)


def main(arguments_given: list[str] | None = None) -> None:
    """Measure, print a table, and one JSON document as the last line."""
    arguments = _parser().parse_args(arguments_given)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a worker; before torch is loaded
    import torch

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    effort = QUICK if arguments.quick else CUDA if device == "cuda" else FULL
    wanted = PARTS if "all" in arguments.parts else tuple(dict.fromkeys(arguments.parts))
    with tempfile.TemporaryDirectory(prefix="bench-") as data_dir:
        report = measure(Path(data_dir), wanted, effort, device)
    print(to_table(report))
    if arguments.page and "sizes" in report:
        write_sizes(report)
    if arguments.page and wanted != ("sizes",):
        write_into_page(report, DOCS / "performance.md")
    print(json.dumps(report))


def measure(data_dir: Path, parts: tuple[str, ...], effort: Effort, device: str) -> Figures:
    """Measure one part after another; what one learns of this machine serves the next.

    The service has the model that ships, else it is as it is out of the box. Memory comes first:
    what it is of a service that has not worked yet can be measured only then. Another service,
    which finds what the first has measured, is for the first request.
    """
    # torch is imported after the environment is set.
    from scripts.benchmark import batch, race, service
    from scripts.benchmark.server import serving

    report: Figures = {"machine": describe_machine(), "is_quick": effort.is_tiny, "device": device}

    def add(part: str, function: Callable[..., Figures], *arguments: object) -> None:
        if part in parts:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            report[part] = function(*arguments)

    add("kernel", race.measure_kernel, data_dir, effort, device)
    add("sizes", race.measure_sizes, data_dir, effort)
    add("batch", batch.measure_batch, data_dir, effort, device)
    if set(ON_THE_SERVICE).isdisjoint(parts):
        return report
    settings = {"UPSCALED_DEVICE": device, "UPSCALED_MODEL_X4": MODEL}
    settings["UPSCALED_TUNING"] = str(not effort.is_tiny).lower()
    report["served_model"] = MODEL
    with serving(data_dir, settings) as server:
        add("memory", service.measure_memory, server, effort, device)
        add("http", service.measure_http, server, effort)
    if "cold" in parts:
        cold_dir = data_dir / "cold"
        if (data_dir / "tuning").exists():
            shutil.copytree(data_dir / "tuning", cold_dir / "tuning")
        with serving(cold_dir, settings) as server:
            add("cold", service.measure_cold, server, effort)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    add = parser.add_argument
    parts = f"{', '.join(PARTS)} or all (the default), which leaves out sizes: README's plot"
    choices = [*PARTS, "sizes", "all"]
    add("parts", nargs="*", default="all", choices=choices, metavar="PART", help=parts)
    add("--quick", action="store_true", help="tiny inputs: that it works at all")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    add("--page", action="store_true", help="write results into the page of performance")
    return parser
