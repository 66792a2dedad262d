"""Contestants of a race: what each is, one run of it, and a process of its own for it."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Literal, TypeVar

from scripts.benchmark.pictures import Pixels

Kind = Literal["ours", "package", "ncnn", "matmul"]

_CLASSES: Final[Mapping[Kind, tuple[str, str]]] = {
    "ours": ("scripts.benchmark.ours", "Ours"),
    "package": ("scripts.benchmark.published", "Package"),
    "ncnn": ("scripts.benchmark.published", "Ncnn"),
    "matmul": ("scripts.benchmark.matmul", "Matmul"),
}


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
    first measure what is fastest here.
    """

    kind: Kind
    data_dir: str = ""
    model: str = ""
    precision: str = ""
    device: str = "cpu"
    height_px: int = 0
    width_px: int = 0
    is_tuned: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and its picture where one is made."""

    seconds: float
    picture: Pixels | None = None


class Runner:
    """A contestant that is open in the one thread or process of `executor`.

    label: what runs, the last word being the number type: "torch float32". gflop: the arithmetic of
    one run, without the halos of tiles.
    """

    label: str
    gflop: float

    def __init__(self, entry: Entry, executor: Executor) -> None:
        self._executor = executor
        self.label, self.gflop = self._call(_open, entry)

    def run_once(self) -> Run:
        """Run once, timed.

        Raises:
            Absent: the run failed, or the contestant's process died.
        """
        return self._call(_run)

    def _call(self, function: Callable[..., T], *arguments: Entry) -> T:
        try:
            return self._executor.submit(function, *arguments).result()
        except Absent:
            raise
        except Exception as error:  # a BrokenExecutor among them: its process died
            raise Absent(repr(error)) from error


@contextmanager
def open_here(entry: Entry) -> Iterator[Runner]:
    """Open a contestant in a thread of this process.

    Raises:
        Absent: what it needs is not installed here, or cannot do this.
    """
    with ThreadPoolExecutor(1) as executor:
        yield Runner(entry, executor)


@contextmanager
def open_apart(entry: Entry) -> Iterator[Runner]:
    """Open a contestant in a new process: no library's threads or memory touch another's.

    Raises:
        Absent: it cannot take part, or died.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield Runner(entry, executor)


def _open(entry: Entry) -> tuple[str, float]:
    """Open the contestant of this thread; its class has `label`, `gflop` and `run()`."""
    module, name = _CLASSES[entry.kind]
    _own.contestant = getattr(import_module(module), name)(entry)
    return _own.contestant.label, _own.contestant.gflop


def _run() -> Run:
    started = time.perf_counter()
    picture = _own.contestant.run()
    return Run(time.perf_counter() - started, picture)
