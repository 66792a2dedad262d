"""Contestants in turn, round after round: their times, and what follows from them."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from scripts.benchmark.child import in_child
from scripts.benchmark.contestant import Absent, Done, Entry, Here, Runner
from scripts.benchmark.machine import Facts
from scripts.benchmark.pictures import Pixels, largest_difference, psnr_db

Open = Callable[[Entry], AbstractContextManager[Runner]]
PEAK = "peak "
"""How the names of matrix products begin; behind it torch's name of the type."""


@dataclass(frozen=True, slots=True)
class Race:
    """entries: by name. against: whom the others' speed is given in ratio to. exact: by name of a
    contestant, the one that its picture is compared with.
    """

    entries: Mapping[str, Entry]
    against: str
    exact: Mapping[str, str] = field(default_factory=dict)


def open_apart(entry: Entry) -> AbstractContextManager[Runner]:
    return in_child(entry)


@contextmanager
def open_here(entry: Entry) -> Iterator[Runner]:
    yield Here(entry)


def run_race(race: Race, rounds: int, opened: Open = open_apart) -> Facts:
    """Let everyone who can take part run `rounds` times, one at a time, after a run to warm up.

    Every other round goes backwards: what runs after what is then no matter. Who dies on the way is
    absent from then on.
    """
    with ExitStack() as stack:
        runners, opened_s, absent = _open_all(race, stack, opened)
        runs: dict[str, list[Done]] = {name: [] for name in runners}
        for at in range(rounds):
            for name in list(runners) if at % 2 == 0 else list(reversed(runners)):
                try:
                    runs[name].append(runners[name].run_once())
                except Absent as reason:  # the others' figures stand without it
                    absent[name] = str(reason)
                    del runners[name], runs[name]
                    _say(f"{name}: gone")
            _say(f"round {at + 1} of {rounds}")
        return {
            "contestants": summarise(runners, runs),
            "opened_s": opened_s,
            "ratios": compare(runs, race.against),
            "pictures": compare_pictures(runners, race.exact),
            "absent": absent,
        }


def _open_all(
    race: Race, stack: ExitStack, opened: Open
) -> tuple[dict[str, Runner], dict[str, float], dict[str, str]]:
    """Who can take part, warm; the seconds until they were; why others cannot."""
    runners: dict[str, Runner] = {}
    opened_s: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name, entry in race.entries.items():
        started = time.perf_counter()
        try:
            runner = stack.enter_context(opened(entry))
            runner.run_once()
        except Absent as reason:
            absent[name] = str(reason)
            _say(f"{name}: absent")
            continue
        runners[name] = runner
        opened_s[name] = round(time.perf_counter() - started, 2)
        _say(f"{name}: {runner.label}, ready after {opened_s[name]:.1f} s")
    return runners, opened_s, absent


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def summarise(runners: Mapping[str, Runner], runs: Mapping[str, list[Done]]) -> dict[str, Facts]:
    """By name: seconds, GFLOP/s of the fastest run, and its share of the machine's own peak."""
    peaks = {
        name.removeprefix(PEAK): rate(done) for name, done in runs.items() if name.startswith(PEAK)
    }
    table: dict[str, Facts] = {}
    for name, runner in runners.items():
        seconds = [done.seconds for done in runs[name]]
        peak = peaks.get(runner.label.rpartition(" ")[2])
        is_peak = name.startswith(PEAK)
        table[name] = {
            "label": runner.label,
            "fastest_s": round(min(seconds), 5),
            "median_s": round(statistics.median(seconds), 5),
            "gflop": round(runs[name][-1].gflop, 3),
            "gflop_per_s": round(rate(runs[name]), 2),
            "share_of_peak": round(rate(runs[name]) / peak, 4) if peak and not is_peak else None,
            "peak_device_mib": runner.peak_device_mib(),
        }
    return table


def _picture(runner: Runner) -> Pixels | None:
    try:
        return runner.picture()
    except Absent as reason:
        _say(f"{runner.label}: gone before its picture was compared: {reason}")
        return None


def rate(runs: list[Done]) -> float:
    """GFLOP/s of the fastest run."""
    return max(done.gflop / done.seconds for done in runs)


def compare(runs: Mapping[str, list[Done]], against: str) -> dict[str, Facts]:
    """How many times as fast as `against` each of the others is; nothing where it is absent."""
    if against not in runs:
        return {}
    base = [done.seconds for done in runs[against]]
    return {
        f"{name} against {against}": {
            "fastest": round(min(base) / min(seconds), 3),
            "median": round(statistics.median(base) / statistics.median(seconds), 3),
        }
        for name, done in runs.items()
        if name != against and not name.startswith(PEAK)
        for seconds in [[each.seconds for each in done]]
    }


def compare_pictures(runners: Mapping[str, Runner], exact: Mapping[str, str]) -> dict[str, Facts]:
    """How far each picture is from the float32 one of the same weights."""
    pictures = {
        name: _picture(runners[name]) for name in {*exact, *exact.values()} if name in runners
    }
    table: dict[str, Facts] = {}
    for name, other in exact.items():
        one, reference = pictures.get(name), pictures.get(other)
        if one is not None and reference is not None:
            decibel = psnr_db(one, reference)
            table[f"{name} against {other}"] = {
                "psnr_db": None if decibel is None else round(decibel, 2),
                "largest_levels": largest_difference(one, reference),
            }
    return table
