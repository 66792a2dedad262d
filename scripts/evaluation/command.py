"""The command line of scripts/evaluate."""

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from scripts.evaluation.blind.pairs import Comparison
from scripts.evaluation.blind.session import compare_blind
from scripts.evaluation.chosen import Chosen, Options, open_chosen, open_product
from scripts.evaluation.measure import (
    Figures,
    Truth,
    compare,
    flat_error_levels,
    measure,
    measure_truths,
    read_truths,
)
from scripts.evaluation.perceptual import FIGURES, PerceptualMeter
from scripts.evaluation.sheet import draw_sheet, write_sheets
from scripts.evaluation.subjects import draw_subjects
from scripts.evaluation.upscalers import KERNELS, FileUpscaler, Upscaler
from upscaled_models.errors import ModelError
from upscaled_models.quantise.tracks import FILES

FLAT = "flat"
"""Name in `--skip` of the runs over pictures of one colour."""

COLUMNS: Mapping[str, str] = {
    "psnr_db": "PSNR dB",
    "ssim": "SSIM",
    "acutance": "acutance",
    "checkerboard": "checker",
    "ciede2000_to_input": "dE input",
    "ciede2000_to_truth": "dE truth",
    "niqe": "NIQE",
    "ssimulacra2": "SSIMU2",
    "flip": "FLIP",
    "feature": "feature",
    "feature_lite0": "f. lite0",
}
"""The printed metrics in order, with the heads of their columns."""


def main(arguments_given: list[str] | None = None) -> None:
    """Measure, or compare blind; print tables, and one JSON document as the last line."""
    arguments = _parser().parse_args(arguments_given)
    torch.set_num_threads(arguments.threads)
    if arguments.draw_subjects is not None:
        draw_subjects(arguments.draw_subjects)
        return
    if arguments.truth is None:
        raise SystemExit("scripts/evaluate: --truth FOLDER is needed")
    with ExitStack() as stack:
        try:
            truths = read_truths(arguments.truth, arguments.scale)
            chosen = _open_chosen(arguments, stack)
            if arguments.blind:
                document = _compare_blind(arguments, truths, chosen)
            else:
                document = _measure(arguments, truths, chosen)
        except (ValueError, ModelError, FileNotFoundError) as error:
            raise SystemExit(f"scripts/evaluate: {error}") from error
    print(json.dumps(document))


def _open_chosen(arguments: argparse.Namespace, stack: ExitStack) -> Chosen:
    options = Options(arguments.scale, arguments.models_dir, arguments.cache)
    chosen = open_chosen(arguments.models, options, int8=arguments.int8)
    if arguments.product:
        product = stack.enter_context(open_product(arguments.scale))
        chosen.upscalers["product"] = FileUpscaler(product)
    return chosen


def _measure(
    arguments: argparse.Namespace, truths: list[Truth], chosen: Chosen
) -> dict[str, object]:
    """Print the table, write the requested sheets, and return the document."""
    scale, tracks = arguments.scale, arguments.tracks
    meter = PerceptualMeter.open(arguments.skip)
    for text in meter.missing:
        print(text, file=sys.stderr)
    of_truths = measure_truths(truths, scale, meter)
    report = measure(truths, chosen.upscalers, scale, tracks, meter)
    _print_table(report, of_truths)
    shown = [truth for truth in truths if not arguments.only or truth.name in arguments.only]
    if arguments.sheet is not None:
        draw_sheet(shown, chosen.upscalers, scale, tracks).save(arguments.sheet)
    if arguments.sheets is not None:
        write_sheets(arguments.sheets, shown, chosen.upscalers, scale, tracks)
    by_pixels: dict[str, Upscaler] = {
        name: each for name, each in chosen.upscalers.items() if not isinstance(each, FileUpscaler)
    }
    return {
        "scale": scale,
        "pictures": len(truths),
        "truth": of_truths,
        "tracks": report,
        "flat_error_levels": {
            name: flat_error_levels(by_pixels[name])
            for name in chosen.small_networks
            if FLAT not in arguments.skip
        },
        "int8_psnr_db": {
            label: compare(truths, by_pixels[label], by_pixels[label_8], scale)
            for label, label_8 in chosen.in_8_bits
        },
    }


def _compare_blind(
    arguments: argparse.Namespace, truths: list[Truth], chosen: Chosen
) -> dict[str, object]:
    upscalers = {
        name: each
        for name, each in chosen.upscalers.items()
        if name not in KERNELS or name in arguments.models
    }
    summary = compare_blind(
        Comparison(
            upscalers=upscalers,
            truths=truths,
            tracks=arguments.tracks,
            scale=arguments.scale,
            seed=arguments.seed,
            count=arguments.pairs,
        ),
        arguments.tally,
        arguments.port,
    )
    rows = [("all", summary), *summary["by_track"].items()]
    for track, row in rows:
        wins = "  ".join(f"{name} {count}" for name, count in row["wins"].items())
        print(f"{track:8}{wins}  no difference {row['ties']}  chance {row['chance']:.3f}")
    return {**summary, "tally": str(arguments.tally)}


def _print_table(report: Mapping[str, Mapping[str, Figures]], of_truths: Figures) -> None:
    """Print a row per track and upscaler; a metric that was not measured shows as a dash."""
    print(f"{'track':8}{'upscaler':28}" + "".join(f"{head:>10}" for head in COLUMNS.values()))
    rows = [("", "truth", of_truths)]
    rows += [
        (track, name, row) for track, by_name in report.items() for name, row in by_name.items()
    ]
    for track, name, row in rows:
        values = [f"{row[key]:10.3f}" if key in row else f"{'-':>10}" for key in COLUMNS]
        print(f"{track:8}{name:28}{''.join(values)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/evaluate", description="Measure upscalers against ground truth."
    )
    parser.add_argument(
        "models",
        nargs="*",
        help="names of models or weights files, either with +colour after it; or `tempered`",
    )
    parser.add_argument("--truth", type=Path, help="folder of ground truth")
    parser.add_argument("--scale", type=int, choices=(2, 4), default=4)
    parser.add_argument(
        "--tracks", nargs="+", choices=FILES, default=list(FILES), help="default: all"
    )
    parser.add_argument(
        "--int8", action="store_true", help="also in 8 bits, and how near to its own float32"
    )
    parser.add_argument(
        "--product", action="store_true", help="also what the product makes of each file"
    )
    parser.add_argument(
        "--skip",
        nargs="+",
        choices=(*FIGURES, FLAT),
        default=[],
        help="figures that are not wanted",
    )
    parser.add_argument("--sheet", type=Path, help="write one contact sheet PNG here")
    parser.add_argument("--sheets", type=Path, help="write a sheet per truth and track here")
    parser.add_argument("--only", nargs="*", help="names of the truths shown on the sheets")
    parser.add_argument(
        "--blind", action="store_true", help="a page on which to choose between two of them"
    )
    parser.add_argument("--pairs", type=int, default=30, help="of the blind comparison")
    parser.add_argument("--seed", type=int, default=1, help="of its crops and sides")
    parser.add_argument("--port", type=int, default=0, help="of its page; 0: a free one")
    parser.add_argument(
        "--tally", type=Path, default=Path("blind-tally.json"), help="where its votes are kept"
    )
    parser.add_argument("--cache", type=Path, help="keep the results of large networks here")
    parser.add_argument("--draw-subjects", type=Path, help="only draw the drawn subjects here")
    parser.add_argument("--models-dir", type=Path, default=Path(".upscaled/models"))
    parser.add_argument("--threads", type=int, default=2)
    return parser
