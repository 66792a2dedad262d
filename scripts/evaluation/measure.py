"""Measure upscalers over a folder of ground truth."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from scripts.evaluation.colour import mean_ciede2000
from scripts.evaluation.metrics import acutance, checkerboard, ssim
from scripts.evaluation.perceptual import PerceptualMeter
from scripts.evaluation.upscalers import AnyUpscaler, Upscaler, run
from upscaled_models.quantise.metrics import luma, psnr_db
from upscaled_models.quantise.pictures import SUFFIXES, read_rgb
from upscaled_models.quantise.tracks import FILES, make_clean, make_small

Pixels = NDArray[np.uint8]
Figures = dict[str, float]


@dataclass(frozen=True)
class Truth:
    """One ground truth, cut to a multiple of the scale."""

    name: str
    pixels: Pixels


def read_truths(folder: Path, scale: int) -> list[Truth]:
    """Read every picture of `folder`; raises `ValueError` for none or a single-coloured one."""
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
    truths: list[Truth],
    upscalers: Mapping[str, AnyUpscaler],
    scale: int,
    tracks: Collection[str] = tuple(FILES),
    meter: PerceptualMeter | None = None,
) -> dict[str, dict[str, Figures]]:
    """Return mean figures over all truths: track -> upscaler -> figure.

    Args:
        tracks: names of `FILES` (models/upscaled_models/quantise/tracks.py).
        meter: measures the perceptual metrics; None leaves them out.
    """
    meter = meter or PerceptualMeter()
    rows: dict[str, dict[str, list[Figures]]] = {
        track: {name: [] for name in upscalers} for track in tracks
    }
    for truth in truths:
        reference = meter.refer_to(truth.pixels)
        for track in tracks:
            small = make_small(track, truth.pixels, scale, truth.name)
            for name, upscaler in upscalers.items():
                result = run(upscaler, small)
                figures = _measure_one(result, small.pixels, truth.pixels, scale)
                figures |= meter.measure(result, reference, scale)
                rows[track][name].append(figures)
    return {
        track: {name: _mean(figures) for name, figures in by_name.items()}
        for track, by_name in rows.items()
    }


def measure_truths(truths: list[Truth], scale: int, meter: PerceptualMeter) -> Figures:
    """Return the mean NIQE of the truths themselves, which needs no truth to compare with."""
    if meter.natural_model is None:
        return {}
    return _mean([{"niqe": meter.measure_niqe(truth.pixels, scale)} for truth in truths])


def compare(truths: list[Truth], one: Upscaler, other: Upscaler, scale: int) -> float:
    """Return the mean RGB PSNR of two upscalers' results over all clean inputs, in dB."""
    smalls = (make_clean(truth.pixels, scale) for truth in truths)
    pairs = ((one(small).astype(np.float64), other(small).astype(np.float64)) for small in smalls)
    return round(fmean(psnr_db(*pair) for pair in pairs), 2)


def flat_error_levels(upscale: Upscaler) -> int:
    """Return the worst deviation in levels over pictures of one colour: 256 greys, 27 colours."""
    steps = (0, 128, 255)
    colours = [(level, level, level) for level in range(256)]
    colours += [(red, green, blue) for red in steps for green in steps for blue in steps]
    worst = 0
    for colour in colours:
        flat = np.full((8, 8, 3), colour, np.uint8)
        worst = max(worst, int(np.abs(upscale(flat).astype(int) - colour).max()))
    return worst


def _measure_one(result: Pixels, small: Pixels, truth: Pixels, scale: int) -> Figures:
    """Measure one result, with `scale` pixels cut from each border, as the field does."""
    inner = (slice(scale, -scale), slice(scale, -scale))
    plane, truth_plane = luma(result)[inner], luma(truth)[inner]
    return {
        "psnr_db": psnr_db(plane, truth_plane),
        "ssim": ssim(plane, truth_plane),
        "acutance": acutance(plane) / acutance(truth_plane),
        "checkerboard": checkerboard(plane) / checkerboard(truth_plane),
        "ciede2000_to_input": mean_ciede2000(make_clean(result, scale), small),
        "ciede2000_to_truth": mean_ciede2000(result[inner], truth[inner]),
    }


def _mean(rows: list[Figures]) -> Figures:
    """Return the mean of each metric over the pictures that have it, without those of none."""
    means = {}
    for key in rows[0]:
        values = [row[key] for row in rows if not math.isnan(row[key])]
        if values:
            means[key] = round(fmean(values), 4)
    return means
