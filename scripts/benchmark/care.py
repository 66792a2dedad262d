"""Part (f): what checking every window, and correcting colours, costs of one large image."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

import cv2

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Facts
from scripts.benchmark.ours import open_upscaler_with, settings_of, upscale_once
from scripts.benchmark.pictures import make_pixels
from scripts.benchmark.weights import Weights, add_general, add_small_compact, is_random
from upscaled.image.pixels import Pixels
from upscaled.upscale.engines import open_model
from upscaled.upscale.post_process.colour_correction import CORRECTION_REACH_PX, correct_colours
from upscaled.upscale.post_process.pattern_correction import PatternCorrection
from upscaled.upscale.post_process.sanity_check import is_plausible
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.tiles import Region
from upscaled_models.backends.base import Window
from upscaled_models.registry import is_colour_exact
from upscaled_models.store import ModelStore

Result = TypeVar("Result")


class Stopwatch(Generic[Result]):
    """Seconds of a processor that calls through it took, in whichever thread."""

    def __init__(self, call: Callable[[Window, Window], Result]) -> None:
        self._call = call
        self.seconds = 0.0
        self.calls = 0

    def __call__(self, source: Window, result: Window) -> Result:
        began = time.thread_time()
        answer = self._call(source, result)
        self.seconds += time.thread_time() - began
        self.calls += 1
        return answer


def measure_care(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Facts:
    """By model: seconds of processors, and the share that the check and the lock have of them."""
    if effort.is_tiny:
        chosen = [add_small_compact(data_dir)]
    else:
        chosen = [Weights("upscaled-x4", "shipped"), add_general(data_dir, general)]
    side_px, is_tuned = effort.poster_px, not effort.is_tiny
    return {
        weights.model: {"weights": weights.origin}
        | measure_one(data_dir, weights.model, side_px, device, is_tuned=is_tuned)
        for weights in chosen
    }


def measure_one(data_dir: Path, model: str, side_px: int, device: str, *, is_tuned: bool) -> Facts:
    """One image, square, after one that warms up; OpenCV has one thread, as in a worker."""
    entry = Entry("ours", str(data_dir), model, "auto", device, side_px, side_px, is_tuned=is_tuned)
    scale = ModelStore(data_dir / "models").find(model).native_scale
    settings = settings_of(entry)
    engine = open_model(settings, model)
    check, lock = Stopwatch(_checked(model)), Stopwatch(correct_colours)
    care = PostProcessing(check=check)
    if not is_colour_exact(model):
        care = replace(care, lock=lock, correction_reach_px=CORRECTION_REACH_PX)
    pixels = make_pixels(side_px, side_px)
    threads = cv2.getNumThreads()  # an upscaler takes one
    try:
        with open_upscaler_with(engine, settings, scale) as upscaler:
            upscale_once(pixels[: side_px // 2], scale, upscaler)
            began, cpu_began = time.perf_counter(), time.process_time()
            result = upscale_once(pixels, scale, upscaler, care)
            wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        patterns_s = _time_patterns(pixels, result)
    finally:
        cv2.setNumThreads(threads)
    return {
        "side_px": side_px,
        "runs": engine.info.label,
        "windows": check.calls,
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "check_s": round(check.seconds, 4),
        "lock_s": round(lock.seconds, 4),
        "check_share": round(check.seconds / cpu_s, 4),
        "lock_share": round(lock.seconds / cpu_s, 4),
        "patterns_s": round(patterns_s, 4),
        "patterns_share": round(patterns_s / (cpu_s + patterns_s), 4),
    }


def _time_patterns(source: Pixels, result: Pixels) -> float:
    """Seconds of a processor that the correction of fine patterns takes over the whole image."""
    height, width = source.shape[:2]
    began = time.thread_time()
    correction = PatternCorrection(source, result)
    correction.add(Region(0, 0, height, width))
    correction.advance(height)
    return time.thread_time() - began


def _checked(model: str) -> Callable[[Window, Window], bool]:
    """The service's own check; what random weights make is looked at as long, and believed."""
    if not is_random(model):
        return is_plausible
    return lambda source, result: is_plausible(source, result) or True
