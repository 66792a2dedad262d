"""Try one candidate: a few pixels first, so that a very slow one costs next to nothing.

On some CPUs a convolution in bfloat16 takes 89 times as long as in float32. And where a processor
lacks an instruction that a backend requires, the kernel ends the process. So each trial is
recorded in a file while it runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from upscaled_models.accuracy import Accuracy, measure_accuracy
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.timing import Meter, Timing
from upscaled_models.backends.base import Tunable, Window, round_up

PROBE_SIDES_PX: Final = (8, 32)
"""Sides of the windows of a few pixels that a candidate runs first."""

PROBE_RUNS: Final = 8
PICTURE_RUNS: Final = 4
PROBE_LONGEST_S: Final = 0.1
"""Limits on the runs of a probe or a picture, of which the fastest counts, as other work disturbs
single runs; whichever limit comes first."""

HOPELESS_RATIO: Final = 5.0
"""A candidate that takes more than this many times float32's time for a few pixels is refused."""

HOPELESS_LEAST_S: Final = 0.01
"""Shorter probes are never refused: other work may disturb a run for as long as this."""

MIN_WINDOW_PSNR_DB: Final = 40.0
"""Least PSNR of the first picture's result in a larger window, for bars that are no lower."""


MAX_DEATHS: Final = 2
"""Trials that may end the process before a candidate is refused: one death may have been caused by
another process."""


class CandidateRefused(Exception):
    """A candidate that may not be chosen; the text says why."""


class TimeBudget:
    """The time that is left for tuning, by the meter's clock."""

    def __init__(self, seconds: float, meter: Meter) -> None:
        self._meter = meter
        self._started_s = meter.now_s()
        self._seconds = seconds

    @property
    def spent_s(self) -> float:
        return self._meter.now_s() - self._started_s

    def allows(self, seconds: float) -> bool:
        """Return whether work of that length would end within the budget."""
        return self.spent_s + seconds <= self._seconds


class Attempts:
    """A file with a line for each candidate whose trial began and has not ended.

    In a folder that cannot be written to, nothing is recorded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def deaths(self, label: str) -> int:
        """Return how often the process ended while it tried that candidate."""
        return self._read().count(label)

    @contextmanager
    def trying(self, label: str) -> Iterator[None]:
        """Record the candidate during the block; where the block ends, clear its deaths too.

        A worker may be stopped while it measures: what gets through once is not the cause.
        """
        before = self._read()
        self._write([*before, label])
        try:
            yield
        finally:
            self._write([each for each in before if each != label])

    def forget(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _read(self) -> list[str]:
        try:
            return self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []

    def _write(self, labels: list[str]) -> None:
        with suppress(OSError):
            self._path.write_text("".join(f"{label}\n" for label in labels))


@dataclass(frozen=True, slots=True)
class Reference:
    """Float32's results for the pictures and flat colours, and the time that they took.

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
class OpenCandidate:
    """A candidate that is open and measured; once it passed its accuracy check, with the proof.

    proof: None for float32 itself. ns_per_px: cost of a picture.
    """

    candidate: Candidate
    engine: Tunable
    meter: Meter
    proof: Accuracy | None = None
    ns_per_px: float = 0.0

    def run(self, windows: Sequence[Window]) -> tuple[list[Window], Timing]:
        """Run a batch and measure it; raises what the engine raises."""
        return self.meter.run(self.engine, windows, self.candidate.threads)

    def run_each(self, windows: Sequence[Window]) -> tuple[Window, ...]:
        return tuple(self.run([window])[0][0] for window in windows)

    def run_pictures(self, pictures: Sequence[Window]) -> tuple[tuple[Window, ...], float]:
        """Return all results, and the cost in ns of an input pixel of the last picture."""
        runs = [self.run([picture]) for picture in pictures]
        height, width = pictures[-1].shape[:2]
        seconds = self._least_s([pictures[-1]], PICTURE_RUNS, [runs[-1][1]])
        return tuple(results[0] for results, _ in runs), seconds * 1e9 / (height * width)

    def probe_s(self, side_px: int) -> float:
        """Return the least cost of a few pixels, after a run that makes the kernels."""
        side_px = round_up(side_px, self.engine.info.spec.multiple_px)
        windows = [np.zeros((side_px, side_px, 3), np.uint8)]
        self.run(windows)
        return self._least_s(windows, PROBE_RUNS, [])

    def _least_s(self, windows: Sequence[Window], most_runs: int, timings: list[Timing]) -> float:
        """Return the least cost of `timings` and of more runs, within `PROBE_LONGEST_S`."""
        while not timings or (
            len(timings) < most_runs and sum(each.clock_s for each in timings) < PROBE_LONGEST_S
        ):
            timings.append(self.run(windows)[1])
        return min(each.cost_s for each in timings)


def run_reference(
    trial: OpenCandidate,
    pictures: tuple[Window, ...],
    flats: tuple[Window, ...],
    *,
    is_probed: bool = True,
) -> Reference:
    """Compute in float32, with `trial`, what all candidates are compared with."""
    probes_s = tuple(trial.probe_s(side) for side in PROBE_SIDES_PX) if is_probed else ()
    flat_results = trial.run_each(flats)
    results, ns_per_px = trial.run_pictures(pictures)
    return Reference(pictures, flats, results, flat_results, probes_s, ns_per_px)


def try_candidate(
    candidate: Candidate, expected: Reference, meter: Meter, attempts: Attempts
) -> OpenCandidate:
    """Open one candidate, probe its speed and check its accuracy.

    Raises:
        CandidateRefused: it is too slow, wrong, fails, or has ended the process too often.
    """
    if attempts.deaths(candidate.label) >= MAX_DEATHS:
        raise CandidateRefused(f"ended the process {MAX_DEATHS} times")
    try:
        with attempts.trying(candidate.label):
            return _try(candidate, expected, meter)
    except CandidateRefused:
        raise
    except Exception as error:  # whatever a backend raises, this candidate is not chosen
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CandidateRefused(f"fails: {reason}") from error


def require_picture(result: Window, expected: Reference, trial: OpenCandidate) -> None:
    """Check a window that has the first picture in its corner, all but the halo, by its result.

    Raises:
        CandidateRefused: the picture has another result in this window than by itself.
    """
    spec = trial.engine.info.spec
    scale = spec.native_scale
    sides = expected.pictures[0].shape[0], result.shape[0] // scale
    part = slice(max(1, min(sides) - spec.halo_px) * scale)
    near = measure_accuracy([expected.picture_results[0][part, part]], [result[part, part]])
    bar = trial.candidate.bar
    least_db = min(MIN_WINDOW_PSNR_DB, bar.min_psnr_db)
    if near.mean_shift > bar.max_mean_shift or near.psnr_db < least_db:
        raise CandidateRefused("another result in a larger window")


def _try(candidate: Candidate, expected: Reference, meter: Meter) -> OpenCandidate:
    trial = OpenCandidate(candidate, candidate.open().strict(), meter)
    for side_px, float32_s in zip(PROBE_SIDES_PX, expected.probes_s, strict=False):
        seconds = trial.probe_s(side_px)
        if seconds > max(HOPELESS_LEAST_S, HOPELESS_RATIO * float32_s):
            raise CandidateRefused(f"takes {seconds / float32_s:.0f} times as long as float32")
    got_flats = trial.run_each(expected.flats)
    got, ns_per_px = trial.run_pictures(expected.pictures)
    proof = measure_accuracy(
        expected.picture_results, got, expected.flats, expected.flat_results, got_flats
    )
    if fault := proof.find_fault(candidate.bar):
        raise CandidateRefused(fault)
    return replace(trial, proof=proof, ns_per_px=ns_per_px)
