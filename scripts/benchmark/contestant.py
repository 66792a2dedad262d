"""Contestants of a race: what each is, one run of it, and a process of its own for it."""

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Final, Literal, Protocol

from scripts.benchmark.pictures import Pixels

Kind = Literal["ours", "package", "ncnn", "matmul"]

_CLASSES: Final[Mapping[Kind, tuple[str, str]]] = {
    "ours": ("scripts.benchmark.ours", "Ours"),
    "package": ("scripts.benchmark.package", "Package"),
    "ncnn": ("scripts.benchmark.ncnn_network", "Ncnn"),
    "matmul": ("scripts.benchmark.matmul", "Matmul"),
}


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


class Runner(Protocol):
    """A contestant that is open, in this process or in one of its own.

    label: what runs, the last word being the number type: "torch float32". gflop: the arithmetic of
    one run, without the halos of tiles.
    """

    label: str
    gflop: float

    def run_once(self) -> Run:
        """Run once, timed.

        Raises:
            Absent: the contestant's process died.
        """
        ...


class Here:
    """A contestant in this process. The class of its kind has `label`, `gflop` and `run()`."""

    def __init__(self, entry: Entry) -> None:
        module, name = _CLASSES[entry.kind]
        self._contestant = getattr(import_module(module), name)(entry)
        self.label: str = self._contestant.label
        self.gflop: float = self._contestant.gflop

    def run_once(self) -> Run:
        started = time.perf_counter()
        picture = self._contestant.run()
        return Run(time.perf_counter() - started, picture)


@contextmanager
def open_here(entry: Entry) -> Iterator[Runner]:
    """Open a contestant in this process.

    Raises:
        Absent: what it needs is not installed here, or cannot do this.
    """
    yield Here(entry)


class _Apart:
    """The parent's end of a contestant in a process of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.label, self.gflop = self._receive()

    def run_once(self) -> Run:
        with suppress(BrokenPipeError):  # why it died can still be received
            self._connection.send("run")
        run: Run = self._receive()
        return run

    def _receive(self) -> Any:  # noqa: ANN401  (what a connection carries)
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise Absent("its process died") from error
        if isinstance(answer, Absent):
            raise answer
        return answer


@contextmanager
def open_apart(entry: Entry) -> Iterator[Runner]:
    """Open a contestant in a new process: no library's threads or memory touch another's.

    Raises:
        Absent: it cannot take part, or died.
    """
    spawning = multiprocessing.get_context("spawn")
    connection, childs_end = spawning.Pipe()
    process = spawning.Process(target=_serve_runs, args=(entry, childs_end), daemon=True)
    process.start()
    childs_end.close()
    try:
        yield _Apart(connection)
    finally:
        process.kill()
        process.join()
        connection.close()


def _serve_runs(entry: Entry, connection: Connection) -> None:
    """Open a contestant, then run it once for each message of the parent."""
    try:
        runner = Here(entry)
        connection.send((runner.label, runner.gflop))
        while connection.recv():
            connection.send(runner.run_once())
    except Exception as error:
        connection.send(error if isinstance(error, Absent) else Absent(repr(error)))
        raise
