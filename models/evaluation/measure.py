"""Measures upscalers over a folder of ground truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from models.evaluation.colour import mean_ciede2000
from models.evaluation.metrics import acutance, checkerboard, luma, psnr_db, ssim
from models.evaluation.tracks import TRACKS, make_clean
from models.evaluation.upscalers import Upscaler
from models.training.pictures import SUFFIXES, read_rgb

Pixels = NDArray[np.uint8]
Figures = dict[str, float]


@dataclass(frozen=True)
class Truth:
    """One ground truth, cut to a multiple of the scale."""

    name: str
    pixels: Pixels


def read_truths(folder: Path, scale: int) -> list[Truth]:
    """Every picture of `folder`; raises `ValueError` for none, and for one of a single colour."""
    truths = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            pixels = read_rgb(path)
            height, width = (side // scale * scale for side in pixels.shape[:2])
            if (pixels == pixels[:1, :1]).all():
                raise ValueError(f"{path} shows one colour: there is nothing to measure")
            truths.append(Truth(path.stem, pixels[:height, :width]))
    if not truths:
        raise ValueError(f"{folder} holds no picture")
    return truths


def measure(
    truths: list[Truth], upscalers: Mapping[str, Upscaler], scale: int
) -> dict[str, dict[str, Figures]]:
    """Mean figures over all truths: track -> upscaler -> figure."""
    report: dict[str, dict[str, Figures]] = {}
    for track, make_small in TRACKS.items():
        rows: dict[str, list[Figures]] = {name: [] for name in upscalers}
        for truth in truths:
            small = make_small(truth.pixels, scale, truth.name)
            for name, upscale in upscalers.items():
                rows[name].append(_measure_one(upscale(small), small, truth.pixels, scale))
        report[track] = {name: _mean(figures) for name, figures in rows.items()}
    return report


def compare(truths: list[Truth], one: Upscaler, other: Upscaler, scale: int) -> float:
    """How near two upscalers' results are over all clean inputs: mean RGB PSNR in dB."""
    smalls = (make_clean(truth.pixels, scale, truth.name) for truth in truths)
    pairs = ((one(small).astype(np.float64), other(small).astype(np.float64)) for small in smalls)
    return round(fmean(psnr_db(*pair) for pair in pairs), 2)


def flat_error_levels(upscale: Upscaler) -> int:
    """The worst deviation, in levels, over pictures of one colour: 256 greys, 27 colours."""
    steps = (0, 128, 255)
    colours = [(level, level, level) for level in range(256)]
    colours += [(red, green, blue) for red in steps for green in steps for blue in steps]
    worst = 0
    for colour in colours:
        flat = np.full((24, 24, 3), colour, np.uint8)
        worst = max(worst, int(np.abs(upscale(flat).astype(int) - colour).max()))
    return worst


def _measure_one(result: Pixels, small: Pixels, truth: Pixels, scale: int) -> Figures:
    """`scale` pixels are cut from each border, as the field does."""
    inner = (slice(scale, -scale), slice(scale, -scale))
    plane, truth_plane = luma(result)[inner], luma(truth)[inner]
    return {
        "psnr_db": psnr_db(plane, truth_plane),
        "ssim": ssim(plane, truth_plane),
        "acutance": acutance(plane) / acutance(truth_plane),
        "checkerboard": checkerboard(plane) / checkerboard(truth_plane),
        "ciede2000_to_input": mean_ciede2000(make_clean(result, scale, ""), small),
        "ciede2000_to_truth": mean_ciede2000(result[inner], truth[inner]),
    }


def _mean(rows: list[Figures]) -> Figures:
    return {key: round(fmean(row[key] for row in rows), 4) for key in rows[0]}
