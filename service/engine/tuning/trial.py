"""Trying one candidate: first with next to nothing, so that a hopeless one costs next to nothing.

On some CPUs a convolution in bfloat16 takes 89 times as long as in float32. So a candidate runs a
few pixels first, and is left when they take much longer than float32's.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from service.engine.engine import Window, round_up
from service.engine.tuning.candidate import Candidate, Tunable
from service.engine.tuning.pictures import fill_window, load_pictures, make_flats
from service.engine.tuning.proof import MAX_MEAN_SHIFT, Proof, prove

PROBE_SIDES_PX: Final = (8, 32)
PROBE_RUNS: Final = 8
PICTURE_RUNS: Final = 4
PROBE_LONGEST_S: Final = 0.1
"""A probe or picture is run again so often, or for so long, whichever ends first: other work
disturbs one run."""

HOPELESS_RATIO: Final = 5.0
"""A candidate that takes so many times float32's time for a few pixels will not win with many."""

HOPELESS_LEAST_S: Final = 0.01
"""Of shorter probes, even hopeless candidates cost little; and what disturbs them is as long."""

MAX_SQUARE: Final = 255**2 / 10**4
"""Mean square error of 40 dB, in levels."""


class Refused(Exception):
    """A candidate may not be chosen; the text says why."""


class Budget:
    """The time that is left for tuning."""

    def __init__(self, seconds: float) -> None:
        self._started = time.perf_counter()
        self._seconds = seconds

    @property
    def spent_s(self) -> float:
        return time.perf_counter() - self._started

    def widen(self, seconds: float) -> None:
        """Allow at least so much in all."""
        self._seconds = max(self._seconds, seconds)

    def allows(self, seconds: float) -> bool:
        return self.spent_s + seconds <= self._seconds


@dataclass(frozen=True, slots=True)
class Expected:
    """What float32 makes of the pictures and flat colours, and how long it took.

    probes_s: seconds for each of `PROBE_SIDES_PX`. ns_per_px: of a picture.
    """

    pictures: tuple[Window, ...]
    flats: tuple[Window, ...]
    picture_results: tuple[Window, ...] = field(repr=False)
    flat_results: tuple[Window, ...] = field(repr=False)
    probes_s: tuple[float, ...]
    ns_per_px: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was proven; float32 itself has no proof. ns_per_px: of a picture."""

    candidate: Candidate
    engine: Tunable
    proof: Proof | None
    ns_per_px: float


def run_reference(engine: Tunable, side_px: int) -> Expected:
    """What all candidates are held against: `engine` computes in float32."""
    probes_s = tuple(_probe(engine, side) for side in PROBE_SIDES_PX)
    pictures, flats = load_pictures(side_px), make_flats()
    flat_results = _run_each(engine, flats)
    results, ns_per_px = _run_pictures(engine, pictures)
    return Expected(pictures, flats, results, flat_results, probes_s, ns_per_px)


def try_candidate(candidate: Candidate, expected: Expected, precision: str) -> Trial:
    """Open, probe and prove one candidate.

    Raises:
        Refused: it is far too slow, wrong, or fails.
    """
    try:
        return _try(candidate, expected, precision)
    except Refused:
        raise
    except Exception as error:  # whatever a runtime raises, this candidate is not chosen
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise Refused(f"fails: {reason}") from error


def time_batch(trial: Trial, expected: Expected, window_px: int, batch: int) -> float:
    """Nanoseconds for each pixel that is kept of full windows.

    Raises:
        Refused: results in windows of this size are not those of the picture.
        EngineOutOfMemory: they do not fit.
    """
    engine = trial.engine
    results, seconds = _run(engine, [fill_window(expected.pictures[0], window_px)] * batch)
    for result in results if trial.proof else []:
        _require_picture(result, expected, engine)
    return seconds * 1e9 / (batch * max(1, window_px - 2 * engine.halo_px) ** 2)


def _try(candidate: Candidate, expected: Expected, precision: str) -> Trial:
    engine = candidate.open().strict()
    for side_px, float32_s in zip(PROBE_SIDES_PX, expected.probes_s, strict=True):
        seconds = _probe(engine, side_px)
        if seconds > max(HOPELESS_LEAST_S, HOPELESS_RATIO * float32_s):
            raise Refused(f"takes {seconds / float32_s:.0f} times as long as float32")
    got_flats = _run_each(engine, expected.flats)
    got, ns_per_px = _run_pictures(engine, expected.pictures)
    proof = prove(
        expected.picture_results,
        got,
        flats=expected.flats,
        expected_flats=expected.flat_results,
        got_flats=got_flats,
    )
    if fault := proof.find_fault(precision):
        raise Refused(fault)
    return Trial(candidate, engine, proof, ns_per_px)


def _require_picture(result: Window, expected: Expected, engine: Tunable) -> None:
    """The picture lies in the window's corner: but for the halo, its result must too."""
    sides = expected.pictures[0].shape[0], result.shape[0] // engine.native_scale
    part = slice(max(1, min(sides) - engine.halo_px) * engine.native_scale)
    errors = result[part, part].astype(np.float64) - expected.picture_results[0][part, part]
    if (
        np.abs(errors.mean(axis=(0, 1))).max() > MAX_MEAN_SHIFT
        or np.square(errors).mean() > MAX_SQUARE
    ):
        raise Refused("another picture in a larger window")


def _probe(engine: Tunable, side_px: int) -> float:
    """The fewest seconds for a few pixels, but for the first time: kernels are made then."""
    side_px = round_up(side_px, engine.multiple_px)
    windows = [np.zeros((side_px, side_px, 3), np.uint8)]
    _run(engine, windows)
    times_s = [_run(engine, windows)[1]]
    while len(times_s) < PROBE_RUNS and sum(times_s) < PROBE_LONGEST_S:
        times_s.append(_run(engine, windows)[1])
    return min(times_s)


def _run_pictures(engine: Tunable, pictures: Sequence[Window]) -> tuple[tuple[Window, ...], float]:
    """All results, and nanoseconds for each input pixel of the last picture: others warm it up."""
    runs = [_run(engine, [picture]) for picture in pictures]
    height, width = pictures[-1].shape[:2]
    times_s = [runs[-1][1]]
    while len(times_s) < PICTURE_RUNS and sum(times_s) < PROBE_LONGEST_S:
        times_s.append(_run(engine, [pictures[-1]])[1])
    return tuple(results[0] for results, _ in runs), min(times_s) * 1e9 / (height * width)


def _run_each(engine: Tunable, windows: Sequence[Window]) -> tuple[Window, ...]:
    return tuple(_run(engine, [window])[0][0] for window in windows)


def _run(engine: Tunable, windows: Sequence[Window]) -> tuple[list[Window], float]:
    started = time.perf_counter()
    results = engine.start(windows).finish()
    return results, time.perf_counter() - started
