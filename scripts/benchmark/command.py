"""The command line of scripts/bench."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from scripts.benchmark.effort import CUDA, FULL, QUICK, Effort
from scripts.benchmark.machine import Figures, describe_machine
from scripts.benchmark.report import DOCS, to_table, write_into_page
from upscaled_models.processor import count_cores

ON_THE_NETWORK = ("kernel", "peak", "seams", "batch", "avatars")
ON_THE_SERVICE = ("memory", "http", "cold", "divided")
PARTS = (*ON_THE_NETWORK, *ON_THE_SERVICE)
SERVED_MODEL = "upscaled-x4"


def main(arguments_given: list[str] | None = None) -> None:
    """Measure, print a table, and one JSON document as the last line."""
    arguments = _parser().parse_args(arguments_given)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a worker; before torch is loaded
    device = arguments.device or _find_device()
    effort = QUICK if arguments.quick else CUDA if device == "cuda" else FULL
    wanted = PARTS if "all" in arguments.parts else tuple(dict.fromkeys(arguments.parts))
    with tempfile.TemporaryDirectory(prefix="bench-") as data_dir:
        report = measure(Path(data_dir), wanted, effort, device, arguments.weights)
    print(to_table(report))
    if arguments.page:
        write_into_page(report, DOCS / "performance.md")
    print(json.dumps(report))


def measure(
    data_dir: Path, parts: tuple[str, ...], effort: Effort, device: str, general: Path | None
) -> Figures:
    """Measure one part after another; what one learns of this machine serves the next.

    general: a file of realesr-general-x4v3.
    """
    # torch is imported after the environment is set.
    from scripts.benchmark import batch, kernel, seams, together

    report: Figures = {
        "machine": describe_machine(),
        "is_quick": effort.is_tiny,
        "device": device,
    }
    for part in (part for part in ON_THE_NETWORK if part in parts):
        _say(part)
        if part == "kernel":
            report[part] = kernel.measure_kernel(data_dir, effort, device, general)
        elif part == "peak":
            report[part] = kernel.measure_peak(effort, device)
        elif part == "seams":
            report[part] = seams.measure_seams(data_dir, effort, device, general)
        elif part == "batch":
            report[part] = batch.measure_batch(data_dir, effort, device)
        else:
            report[part] = together.measure_avatars(data_dir, effort, device)
    if any(part in parts for part in ON_THE_SERVICE):
        report |= _measure_service(parts, data_dir, effort, device)
    return report


def _measure_service(
    parts: tuple[str, ...], data_dir: Path, effort: Effort, device: str
) -> Figures:
    """Start a service with the model that ships, else as it is out of the box.

    Memory comes first: what it is of a service that has not worked yet can be measured only then.
    Another service, which finds what the first has measured, is for the first request. Parts of a
    processor are measured where it has two cores.
    """
    from scripts.benchmark import together
    from scripts.benchmark.server import Server, serving
    from scripts.benchmark.service import measure_cold, measure_http, measure_memory

    settings = {"UPSCALED_DEVICE": device, "UPSCALED_MODEL_X4": SERVED_MODEL}
    if effort.is_tiny:
        settings["UPSCALED_TUNING"] = "false"
    report: Figures = {"served_model": SERVED_MODEL}
    if {"memory", "http", "cold"} & set(parts):
        with serving(data_dir, settings) as server:
            if "memory" in parts:
                _say("memory")
                report["memory"] = measure_memory(server, effort, device)
            if "http" in parts:
                _say("http")
                report["http"] = measure_http(server, effort)
    if "divided" in parts and device == "cpu" and count_cores() > 1:
        _say("divided")

        def serve(divided: str) -> AbstractContextManager[Server]:
            own_dir = data_dir / f"divided-{divided}"
            return serving(own_dir, settings | {"UPSCALED_DEVICE": divided})

        report["divided"] = together.measure_divided(serve, effort)
    if "cold" in parts:
        _say("cold")
        cold_dir = data_dir / "cold"
        if (data_dir / "tuning").exists():
            shutil.copytree(data_dir / "tuning", cold_dir / "tuning")
        with serving(cold_dir, settings) as server:
            report["cold"] = measure_cold(server, effort)
    return report


def _say(part: str) -> None:
    print(f"measuring: {part}", file=sys.stderr, flush=True)


def _find_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parts = f"{', '.join(PARTS)} or all (the default)"
    choices = [*PARTS, "all"]
    add = parser.add_argument
    add("parts", nargs="*", default="all", choices=choices, metavar="PART", help=parts)
    add("--quick", action="store_true", help="tiny inputs: that it works at all")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    weights = "a file of realesr-general-x4v3; default: the one fetched, else random ones"
    add("--weights", type=Path, help=weights)
    page = "write results and plots into the page of performance"
    add("--page", action="store_true", help=page)
    return parser


if __name__ == "__main__":
    main()
