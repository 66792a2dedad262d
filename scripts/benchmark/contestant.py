"""What takes part in a race: who it is, what it works on, and how it is asked to run once."""

import json
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Final, Literal, Protocol

from scripts.benchmark.pictures import Pixels

Kind = Literal["ours", "package", "ncnn", "matmul"]

_MAKERS: Final[dict[Kind, tuple[str, str]]] = {
    "ours": ("scripts.benchmark.ours", "Ours"),
    "package": ("scripts.benchmark.package", "Package"),
    "ncnn": ("scripts.benchmark.ncnn_network", "Ncnn"),
    "matmul": ("scripts.benchmark.matmul", "Matmul"),
}


class Absent(Exception):
    """A contestant that cannot take part here; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant, in words that can be sent to another process.

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
    threads: int = 0
    is_tuned: bool = True

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Entry":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Done:
    """One run. `gflop`: the convolutions' (or the matrix product's) arithmetic, halos included."""

    seconds: float
    gflop: float


class Contestant(Protocol):
    """Opened and ready; made from an `Entry`."""

    @property
    def label(self) -> str:
        """What runs, the last word being the number type: "torch float32"."""
        ...

    def run(self) -> Pixels | None:
        """The whole of the work, once; the picture, where one is made."""
        ...

    def gflop(self) -> float:
        """The arithmetic of the last run."""
        ...

    def peak_device_mib(self) -> float | None:
        """Most memory of the device that was taken so far; None where that is the machine's own."""
        ...


def open_contestant(entry: Entry) -> Contestant:
    """Import, load, place.

    Raises:
        Absent: what it needs is not installed here, or cannot do this.
    """
    module, name = _MAKERS[entry.kind]
    contestant: Contestant = getattr(import_module(module), name)(entry)
    return contestant


class Runner(Protocol):
    """A contestant wherever it runs: in this process, or in one of its own."""

    @property
    def label(self) -> str: ...

    def run_once(self) -> Done: ...

    def picture(self) -> Pixels | None:
        """What it makes; runs once more."""
        ...

    def peak_device_mib(self) -> float | None: ...


class Here:
    """A contestant in this process."""

    def __init__(self, entry: Entry) -> None:
        self._contestant = open_contestant(entry)
        self.label = self._contestant.label

    def run_once(self) -> Done:
        return run_once(self._contestant)

    def picture(self) -> Pixels | None:
        return self._contestant.run()

    def peak_device_mib(self) -> float | None:
        return self._contestant.peak_device_mib()


def run_once(contestant: Contestant) -> Done:
    started = time.perf_counter()
    contestant.run()
    return Done(time.perf_counter() - started, contestant.gflop())


def peak_of_cuda_mib(device: str) -> float | None:
    """Most memory that torch's tensors took in this process; None on a CPU."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
