"""Candidates that are wrong on purpose, beside one that is right, and a clock by which they run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.models.specs import spec_of
from upscaled_models.accuracy import FLOAT_BARS, Bar
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.timing import Timing
from upscaled_models.autotune.trial import Attempts
from upscaled_models.backends.base import Computed, Engine, EngineInfo, Started, Window
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite

Levels = NDArray[np.float64]
Distort = Callable[[Levels], Levels]


def undistorted(levels: Levels) -> Levels:
    return levels


@dataclass(frozen=True)
class FakeEngine:
    """Doubles a picture by repeating pixels, then distorts its levels; costs a time for each pixel,
    by `FakeMeter`.

    A window of more than `room_px` pixels does not fit. shapes: of the batches it computed.
    """

    distort: Distort = undistorted
    seconds_per_px: float = 0.0
    room_px: int = 10**9
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    window_px: int = 64
    halo_px: int = 2
    batch: int = 1
    label: str = "fake float32"
    proof: str = ""
    concurrent: None = None
    is_strict: bool = False

    @property
    def info(self) -> EngineInfo:
        spec = spec_of("fake", native_scale=2, halo_px=self.halo_px)
        return EngineInfo(spec, self.label, self.window_px, 1, self.batch, proof=self.proof)

    def strict(self) -> Self:
        return replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        return replace(self, window_px=window_px, batch=batch, proof=proof, is_strict=False)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        pixels = np.stack(windows)
        self.shapes.append(pixels.shape)
        area_px = pixels.shape[0] * pixels.shape[1] * pixels.shape[2]
        if area_px > self.room_px:
            raise EngineOutOfMemory(str(pixels.shape))
        doubled = [_double(each) for each in windows]
        if self.distort is undistorted:  # what floats would be rounded to, in a tenth of the time
            return Computed(doubled)
        levels = self.distort(np.stack(doubled).astype(np.float64))
        if not np.isfinite(levels).all():
            assert self.is_strict, "an engine that is tried must not mend its results"
            raise ResultNotFinite("not finite")
        return Computed(list(np.clip(levels, 0, 255).round().astype(np.uint8)))


def _double(window: Window) -> Window:
    doubled = cv2.resize(window, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    return doubled.astype(window.dtype, copy=False)


Disturb = Callable[[float], tuple[float, float]]
"""Seconds that a run costs to seconds by the clock and by the processor."""


def undisturbed(cost_s: float) -> tuple[float, float]:
    return cost_s, cost_s


@dataclass
class FakeMeter:
    """Time that passes only while engines run. runs: each engine's cost for a pixel, in order."""

    disturb: Disturb = undisturbed
    passed_s: float = 0.0
    runs: list[float] = field(default_factory=list)

    def now_s(self) -> float:
        return self.passed_s

    def run(
        self, engine: Engine, windows: Sequence[Window], threads: int
    ) -> tuple[list[Window], Timing]:
        assert isinstance(engine, FakeEngine)
        results = engine.start(windows).finish()
        cost_s = engine.seconds_per_px * sum(each.shape[0] * each.shape[1] for each in windows)
        clock_s, processor_s = self.disturb(cost_s)
        self.passed_s += clock_s
        self.runs.append(engine.seconds_per_px)
        return results, Timing(clock_s, processor_s * threads, threads, clock_s - processor_s)


NOTHING_TRIED = Attempts(Path("/dev/null/tried"))


def candidate(
    engine: FakeEngine | None = None, dtype: str = "int8", bar: Bar = FLOAT_BARS["auto"]
) -> Candidate:
    chosen = engine or FakeEngine()
    return Candidate("fake", dtype, threads=1, version="1", bar=bar, open=lambda: chosen)
