"""The command line of scripts/evaluate."""

import argparse
import json
from pathlib import Path

import torch

from models.evaluation.measure import compare, flat_error_levels, measure, read_truths
from models.evaluation.sheet import draw_sheet
from models.evaluation.upscalers import (
    KERNELS,
    Upscaler,
    int8_upscaler,
    kernel_upscaler,
    network_upscaler,
    open_network,
)


def main(arguments_given: list[str] | None = None) -> None:
    """Measure, print a table, and one JSON document as the last line."""
    arguments = _parser().parse_args(arguments_given)
    torch.set_num_threads(arguments.threads)
    scale = arguments.scale
    upscalers: dict[str, Upscaler] = {
        name: kernel_upscaler(kernel, scale) for name, kernel in KERNELS.items()
    }
    flat: dict[str, int] = {}
    for model in arguments.models:
        network, native_scale = open_network(model, arguments.models_dir)
        if native_scale % scale:
            raise SystemExit(
                f"{model} is a x{native_scale} model: it cannot be measured at x{scale}"
            )
        name = Path(model).name.removesuffix(".safetensors").removesuffix(".pth")
        upscalers[name] = network_upscaler(network, native_scale, scale)
        flat[name] = flat_error_levels(upscalers[name])
        if arguments.int8:
            upscalers[f"{name} int8"] = int8_upscaler(model, arguments.models_dir, scale)
            flat[f"{name} int8"] = flat_error_levels(upscalers[f"{name} int8"])
    truths = read_truths(arguments.truth, scale)
    report = measure(truths, upscalers, scale)
    _print_table(report)
    if arguments.sheet is not None:
        shown = [truth for truth in truths if not arguments.only or truth.name in arguments.only]
        draw_sheet(shown, upscalers, scale).save(arguments.sheet)
    document = {
        "scale": scale,
        "pictures": len(truths),
        "tracks": report,
        "flat_error_levels": flat,
        "int8_psnr_db": {
            name: compare(truths, upscalers[name], upscalers[f"{name} int8"], scale)
            for name in flat
            if f"{name} int8" in upscalers
        },
    }
    print(json.dumps(document))  # noqa: T201


def _print_table(report: dict[str, dict[str, dict[str, float]]]) -> None:
    for track, rows in report.items():
        for name, figures in rows.items():
            values = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{track:7}{name:30}{values}")  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/evaluate", description=__doc__)
    parser.add_argument("models", nargs="+", help="names of models, or weights files")
    parser.add_argument("--truth", type=Path, required=True, help="folder of ground truth")
    parser.add_argument("--scale", type=int, choices=(2, 4), default=4)
    parser.add_argument(
        "--int8", action="store_true", help="also in 8 bits, and how near to its own float32"
    )
    parser.add_argument("--sheet", type=Path, help="write a contact sheet PNG here")
    parser.add_argument("--only", nargs="*", help="names of the truths shown on the sheet")
    parser.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    parser.add_argument("--threads", type=int, default=2)
    return parser
