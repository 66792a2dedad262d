"""Contestants in turn, round after round: their times, and what follows from them."""

import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from scripts.benchmark.contestant import Absent, Entry, Run, Runner, open_apart
from scripts.benchmark.machine import Figures
from scripts.benchmark.pictures import Pixels, difference, psnr_db

Open = Callable[[Entry], AbstractContextManager[Runner]]
PEAK = "peak "
"""Beginning of the names of matrix products; behind it torch's name of the type."""


@dataclass(frozen=True, slots=True)
class Race:
    """Contestants by name, and whom each is compared with.

    against: the contestant that the others' speed is a ratio to. exact: by name of a contestant,
    the one that its picture is compared with.
    """

    entries: Mapping[str, Entry]
    against: str
    exact: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Starter:
    """A contestant that is open, and its runs so far."""

    runner: Runner
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def gflop_per_s(self) -> float:
        """The rate of the fastest run."""
        return self.runner.gflop / min(self.seconds)


def run_race(race: Race, rounds: int, opened: Open = open_apart) -> Figures:
    """Run every contestant `rounds` times, one at a time, after a run to warm up.

    Every other round goes backwards: what runs after what is then no matter. One that dies on the
    way is absent from then on.
    """
    starters: dict[str, _Starter] = {}
    absent: dict[str, str] = {}
    with ExitStack() as stack:
        for name, entry in race.entries.items():
            try:
                starter = _Starter(stack.enter_context(opened(entry)))
                starter.runner.run_once()
            except Absent as reason:
                absent[name] = str(reason)
            else:
                starters[name] = starter
                print(f"  {name}: {starter.runner.label}", file=sys.stderr, flush=True)
        for at in range(rounds):
            for name in list(starters)[:: 1 if at % 2 == 0 else -1]:
                try:
                    starters[name].runs.append(starters[name].runner.run_once())
                except Absent as reason:  # the others' figures stand without it
                    absent[name] = str(reason)
                    del starters[name]
            print(f"  round {at + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = {name: _describe(name, starters, race) for name in starters}
    return {"contestants": rows, "absent": absent}


def _describe(name: str, starters: Mapping[str, _Starter], race: Race) -> Figures:
    """Return times, rate and share of the machine's own peak; speed-up and likeness of pictures."""
    starter = starters[name]
    row: Figures = {
        "label": starter.runner.label,
        "fastest_s": round(min(starter.seconds), 5),
        "median_s": round(statistics.median(starter.seconds), 5),
        "gflop": round(starter.runner.gflop, 3),
        "gflop_per_s": round(starter.gflop_per_s, 2),
    }
    if name.startswith(PEAK):
        return row
    peak = starters.get(PEAK + starter.runner.label.rpartition(" ")[2])
    if peak is not None:
        row["share_of_peak"] = round(starter.gflop_per_s / peak.gflop_per_s, 4)
    other = starters.get(race.against)
    if other is not None and other is not starter:
        row["speed_up"] = round(min(other.seconds) / min(starter.seconds), 3)
    exact = starters.get(race.exact.get(name, ""))
    picture = starter.runs[-1].picture
    if exact is not None and picture is not None and exact.runs[-1].picture is not None:
        row |= compare(picture, exact.runs[-1].picture)
    return row


def compare(one: Pixels, other: Pixels) -> Figures:
    """Return how far a picture is from another; no signal to noise ratio where they are equal."""
    decibel = psnr_db(one, other)
    return {
        "psnr_db": None if decibel is None else round(decibel, 2),
        "largest_levels": int(difference(one, other).max()),
    }
