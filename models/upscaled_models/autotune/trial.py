"""Trying one candidate: first with next to nothing, so that a hopeless one costs next to nothing.

On some CPUs a convolution in bfloat16 takes 89 times as long as in float32. So a candidate runs a
few pixels first, and is left when they take much longer than float32's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from upscaled_models.autotune.accuracy import Proof, prove
from upscaled_models.autotune.candidates import Candidate, Tunable
from upscaled_models.autotune.timing import Meter, Timing
from upscaled_models.backends.base import Window, round_up

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

MIN_WINDOW_PSNR_DB: Final = 40.0
"""The same picture in a larger window, of candidates that must reach as much in pictures."""


class Refused(Exception):
    """A candidate may not be chosen; the text says why."""


class Budget:
    """The time that is left for tuning. now_s: a clock that only goes forward."""

    def __init__(self, seconds: float, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._started_s = now_s()
        self._seconds = seconds

    @property
    def spent_s(self) -> float:
        return self._now_s() - self._started_s

    def allows(self, seconds: float) -> bool:
        """Whether what takes so long would end in time."""
        return self.spent_s + seconds <= self._seconds


@dataclass(frozen=True, slots=True)
class Expected:
    """What float32 makes of the pictures and flat colours, and how long it took.

    probes_s: cost in seconds for each of `PROBE_SIDES_PX`; empty where candidates are not probed.
    ns_per_px: cost of a picture. Flat colours may be none, for candidates that need none.
    """

    pictures: tuple[Window, ...]
    flats: tuple[Window, ...]
    picture_results: tuple[Window, ...] = field(repr=False)
    flat_results: tuple[Window, ...] = field(repr=False)
    probes_s: tuple[float, ...]
    ns_per_px: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was proven; float32 itself has no proof. ns_per_px: cost of a picture."""

    candidate: Candidate
    engine: Tunable
    proof: Proof | None
    ns_per_px: float

    def run(self, meter: Meter, windows: Sequence[Window]) -> tuple[list[Window], Timing]:
        """Raises what the engine does."""
        return meter.run(self.engine, windows, self.candidate.threads)


def run_reference(
    trial: Trial,
    meter: Meter,
    pictures: tuple[Window, ...],
    flats: tuple[Window, ...],
    *,
    is_probed: bool = True,
) -> Expected:
    """What all candidates are held against: `trial` computes in float32."""
    probes_s = tuple(_probe(trial, meter, side) for side in PROBE_SIDES_PX) if is_probed else ()
    flat_results = _run_each(trial, meter, flats)
    results, ns_per_px = _run_pictures(trial, meter, pictures)
    return Expected(pictures, flats, results, flat_results, probes_s, ns_per_px)


def try_candidate(candidate: Candidate, expected: Expected, meter: Meter) -> Trial:
    """Open, probe and prove one candidate.

    Raises:
        Refused: it is far too slow, wrong, or fails.
    """
    try:
        return _try(candidate, expected, meter)
    except Refused:
        raise
    except Exception as error:  # whatever a runtime raises, this candidate is not chosen
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise Refused(f"fails: {reason}") from error


def require_picture(result: Window, expected: Expected, trial: Trial) -> None:
    """The first picture lies in the window's corner: but for the halo, its result must too.

    Raises:
        Refused: it does not.
    """
    engine = trial.engine
    sides = expected.pictures[0].shape[0], result.shape[0] // engine.native_scale
    part = slice(max(1, min(sides) - engine.halo_px) * engine.native_scale)
    errors = result[part, part].astype(np.float64) - expected.picture_results[0][part, part]
    bar = trial.candidate.bar
    least_db = min(MIN_WINDOW_PSNR_DB, bar.min_psnr_db)
    if np.abs(errors.mean(axis=(0, 1))).max() > bar.max_mean_shift or np.square(
        errors
    ).mean() > 255**2 / 10 ** (least_db / 10):
        raise Refused("another picture in a larger window")


def _try(candidate: Candidate, expected: Expected, meter: Meter) -> Trial:
    trial = Trial(candidate, candidate.open().strict(), None, 0.0)
    if expected.probes_s:
        _refuse_hopeless(trial, expected, meter)
    got_flats = _run_each(trial, meter, expected.flats)
    got, ns_per_px = _run_pictures(trial, meter, expected.pictures)
    proof = prove(
        expected.picture_results,
        got,
        flats=expected.flats,
        expected_flats=expected.flat_results,
        got_flats=got_flats,
    )
    if fault := proof.find_fault(candidate.bar):
        raise Refused(fault)
    return Trial(candidate, trial.engine, proof, ns_per_px)


def _refuse_hopeless(trial: Trial, expected: Expected, meter: Meter) -> None:
    for side_px, float32_s in zip(PROBE_SIDES_PX, expected.probes_s, strict=True):
        seconds = _probe(trial, meter, side_px)
        if seconds > max(HOPELESS_LEAST_S, HOPELESS_RATIO * float32_s):
            raise Refused(f"takes {seconds / float32_s:.0f} times as long as float32")


def _probe(trial: Trial, meter: Meter, side_px: int) -> float:
    """The least cost in seconds of a few pixels, but for the first time: kernels are made then."""
    side_px = round_up(side_px, trial.engine.multiple_px)
    windows = [np.zeros((side_px, side_px, 3), np.uint8)]
    trial.run(meter, windows)
    return _least_s(trial, meter, windows, PROBE_RUNS, [])


def _run_pictures(
    trial: Trial, meter: Meter, pictures: Sequence[Window]
) -> tuple[tuple[Window, ...], float]:
    """All results, and nanoseconds for each input pixel of the last picture: others warm it up."""
    runs = [trial.run(meter, [picture]) for picture in pictures]
    height, width = pictures[-1].shape[:2]
    seconds = _least_s(trial, meter, [pictures[-1]], PICTURE_RUNS, [runs[-1][1]])
    return tuple(results[0] for results, _ in runs), seconds * 1e9 / (height * width)


def _least_s(
    trial: Trial, meter: Meter, windows: Sequence[Window], most_runs: int, timings: list[Timing]
) -> float:
    """The least cost in seconds of `timings` and of more runs, within `PROBE_LONGEST_S`."""
    while not timings or (
        len(timings) < most_runs and sum(each.clock_s for each in timings) < PROBE_LONGEST_S
    ):
        timings.append(trial.run(meter, windows)[1])
    return min(each.cost_s for each in timings)


def _run_each(trial: Trial, meter: Meter, windows: Sequence[Window]) -> tuple[Window, ...]:
    return tuple(trial.run(meter, [window])[0][0] for window in windows)
