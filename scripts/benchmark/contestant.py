"""Contestants of a race: what each is, one run of it, and a process of its own for it."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Literal, NamedTuple, TypeVar

from scripts.benchmark.pictures import Pixels

Kind = Literal["ours:Ours", "others:Package", "others:Ncnn", "others:Matmul"]
"""Module and class of a contestant; it is imported where it runs."""

PEAK = "peak "
"""Beginning of the names of matrix products; behind it torch's name of the type."""

_own = threading.local()
"""Holds the contestant of this thread, the only one of its executor."""

T = TypeVar("T")


class Absent(Exception):
    """A contestant that cannot take part here; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant and its input.

    model: the name of a model in the store of `data_dir`. precision: of ours, the setting; of a
    matrix product, torch's name of the type. device: "cpu" or "cuda". is_tuned: whether ours may
    first measure what is fastest here; a matrix product that is not is a small one. is_apart: in a
    process of its own, else in a thread. truth: the name of the contestant whose picture this one's
    is compared with. cores: how many it may run on; None: all.
    """

    kind: Kind
    data_dir: str = ""
    model: str = ""
    precision: str = ""
    device: str = "cpu"
    height_px: int = 0
    width_px: int = 0
    is_tuned: bool = True
    is_apart: bool = True
    truth: str = ""
    cores: int | None = None


class Run(NamedTuple):
    """One run by the clock and by its process's processor time, and its picture if there is one."""

    seconds: float
    cpu_s: float = 0
    picture: Pixels | None = None


class Runner:
    """A contestant that is open in the one thread or process of `executor`.

    label: what runs, the last word being the number type: "torch float32". gflop: the arithmetic of
    one run, without the halos of tiles. runs: so far; the first only warms up.
    """

    def __init__(self, entry: Entry, executor: Executor) -> None:
        self._executor = executor
        self.runs: list[Run] = []
        self.label, self.gflop = self._call(_open, entry)

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs[1:]]

    @property
    def gflop_per_s(self) -> float:
        """The rate of the fastest run."""
        return self.gflop / min(self.seconds)

    def run_once(self) -> None:
        """Run once, timed; `Absent` where it failed, or the contestant's process died."""
        self.runs.append(self._call(_run))

    def _call(self, function: Callable[..., T], *arguments: Entry) -> T:
        try:
            return self._executor.submit(function, *arguments).result()
        except Absent:
            raise
        except Exception as error:  # a BrokenExecutor among them: its process died
            raise Absent(repr(error)) from error


@contextmanager
def open_contestant(entry: Entry) -> Iterator[Runner]:
    """Open a contestant; in a new process no library's threads or memory touch another's."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) if entry.is_apart else ThreadPoolExecutor(1) as executor:
        yield Runner(entry, executor)


def _open(entry: Entry) -> tuple[str, float]:
    """Open the contestant of this thread; its class has `label`, `gflop` and `run()`."""
    if entry.cores:  # before a library counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: entry.cores])
    _own.contestant = resolve_name(f"scripts.benchmark.{entry.kind}")(entry)
    return _own.contestant.label, _own.contestant.gflop


def _run() -> Run:
    started, started_cpu = time.perf_counter(), time.process_time()
    picture = _own.contestant.run()
    return Run(time.perf_counter() - started, time.process_time() - started_cpu, picture)
