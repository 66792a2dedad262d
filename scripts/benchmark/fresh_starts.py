"""How good the choices of fresh starts are, half of them on a machine that is busy.

    .venv/bin/python -m scripts.benchmark.fresh_starts [--folders 20] [--models upscaled-x4]

Each start is a process of its own with an empty data folder. Then the choices, and all candidates
in the usual window, upscale one picture in turn, and each is compared with the fastest: by the
processor's time, for the machine may have other work. Prints a line for each start, and one JSON
document as the last line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from upscaled.config import Settings
    from upscaled_models.backends.base import Engine

BUSY_PROCESSES: Final = 4
ROUNDS: Final = 5
DEFAULT_MODELS: Final = ("upscaled-x4", "upscaled-x2")
_MODULE: Final = "scripts.benchmark.fresh_starts"
_BUSY_LOOP: Final = (
    "import os; parent = os.getppid()\n"
    "while os.getppid() == parent: sum(at * at for at in range(1000))"
)
"""Ends with the process that started it, however that ends."""


@dataclass(frozen=True, slots=True)
class Start:
    """One fresh start. ratio: time of its choice by that of the fastest. seconds: how long choosing
    took. is_busy: beside other processes.
    """

    model: str
    is_busy: bool
    chosen: str
    window_px: int
    is_from_table: bool
    is_settled: bool
    seconds: float
    ratio: float = 0.0


def main() -> None:
    """Measure, or, in a process that this one starts, open a model once."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a worker; before torch is loaded
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folders", type=int, default=20, help="fresh starts of each model")
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS)
    parser.add_argument("--side", type=int, default=512, help="of the picture, in pixels")
    parser.add_argument("--open", nargs=2, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--raced", action="store_true", help="race at the start however busy the machine is"
    )
    given = parser.parse_args()
    if given.open:
        _open(*given.open, is_raced=given.raced)
        return
    starts = [
        each
        for model in given.models
        for each in measure(model, folders=given.folders, side_px=given.side, is_raced=given.raced)
    ]
    for each in starts:
        print(describe(each))
    print(json.dumps([asdict(each) for each in starts]))


def measure(model: str, *, folders: int, side_px: int, is_raced: bool = False) -> list[Start]:
    """Every second start beside `BUSY_PROCESSES` others."""
    starts = []
    with tempfile.TemporaryDirectory(prefix="fresh-") as root:
        for at in range(folders):
            folder = Path(root) / str(at)
            is_busy = at % 2 == 1
            print(f"{model}: start {at + 1} of {folders}", file=sys.stderr, flush=True)
            with busy_machine(BUSY_PROCESSES if is_busy else 0):
                starts.append(_start(model, folder, is_busy=is_busy, is_raced=is_raced))
    return _compare(model, starts, side_px)


@contextmanager
def busy_machine(processes: int) -> Iterator[None]:
    """So many processes that compute as fast as they can: `stress-ng` where it is installed."""
    stress = shutil.which("stress-ng")
    command = [stress, "--cpu", "1"] if stress else [sys.executable, "-c", _BUSY_LOOP]
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    if processes:
        time.sleep(1)
    try:
        yield
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.wait()


def describe(start: Start) -> str:
    """One line for people."""
    where = "busy" if start.is_busy else "left alone"
    how = "by the table" if start.is_from_table else "settled" if start.is_settled else "open"
    return (
        f"{start.model:14} {where:10} {start.chosen:20} {start.window_px:4} px  {how:12} "
        f"{start.seconds:5.1f} s  {start.ratio:.3f} of the fastest"
    )


def _start(model: str, folder: Path, *, is_busy: bool, is_raced: bool) -> Start:
    command = [sys.executable, "-m", _MODULE, "--open", model, str(folder)]
    command += ["--raced"] if is_raced else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    choice = json.loads(done.stdout.splitlines()[-1])
    return Start(
        model=model,
        is_busy=is_busy,
        chosen=f"{choice['runtime']} {choice['dtype']}",
        window_px=choice["window_px"],
        is_from_table=choice["is_from_table"],
        is_settled=not choice["unsettled"],
        seconds=choice["tuned_s"],
    )


def _open(model: str, folder: str, *, is_raced: bool) -> None:
    """As a worker does at its start; the choice goes to standard output."""
    from upscaled.upscale.engines import open_autotuner
    from upscaled_models.autotune import autotuner
    from upscaled_models.autotune.load import NO_LOAD

    if is_raced:
        vars(autotuner)["read_load"] = lambda: NO_LOAD
    opening = open_autotuner(_settings(Path(folder)), model)
    opening.open()
    if (choice := opening.find_choice()) is not None:
        print(choice.model_dump_json())


def _settings(folder: Path) -> "Settings":
    from upscaled.config import load_settings

    return load_settings({}, data_dir=folder, device="cpu")


def _compare(model: str, starts: list[Start], side_px: int) -> list[Start]:
    """With the ratio of each start's choice to the fastest of all."""
    from upscaled.upscale.engines import open_autotuner
    from upscaled_models.errors import BackendUnavailable

    settings = _settings(Path(tempfile.gettempdir()))
    autotuner = open_autotuner(settings, model)
    usual_px = autotuner.space.sizes.windows_px[0]
    forms = {(each.chosen, each.window_px) for each in starts}
    engines: dict[tuple[str, int], Engine] = {}
    for candidate in autotuner.candidates:
        opened = None
        for window_px in {usual_px} | {px for label, px in forms if label == candidate.label}:
            try:
                opened = opened or candidate.open()
            except (RuntimeError, BackendUnavailable) as error:
                print(f"not {candidate.label}: {error}", file=sys.stderr)
                break
            sized = opened.sized(window_px=window_px, batch=1, proof="")
            engines.setdefault((candidate.label, window_px), sized)
    costs_s = _time(engines, autotuner.model.spec.native_scale, side_px, settings)
    for (label, window_px), cost_s in sorted(costs_s.items(), key=lambda item: item[1]):
        print(f"{model}: {label}, {window_px} px: {cost_s:.3f} s", file=sys.stderr)
    best_s = min(costs_s.values())
    return [replace(each, ratio=costs_s[each.chosen, each.window_px] / best_s) for each in starts]


def _time(
    engines: dict[tuple[str, int], "Engine"], scale: int, side_px: int, settings: "Settings"
) -> dict[tuple[str, int], float]:
    """Each engine's processor time for one picture: the median of runs in turn."""
    from scripts.benchmark.ours import upscale_once
    from scripts.benchmark.pictures import make_pixels
    from upscaled.upscale.upscaler import open_upscaler

    pixels = make_pixels(side_px, side_px)
    times_s: dict[tuple[str, int], list[float]] = {form: [] for form in engines}
    with ExitStack() as stack:
        upscalers = {
            form: stack.enter_context(
                open_upscaler(
                    settings, scales=(scale,), open_engine=partial(_give, engine), decoders=0
                )
            )
            for form, engine in engines.items()
        }
        for at in range(ROUNDS + 1):
            for form, upscaler in upscalers.items():
                began_s = time.process_time()
                upscale_once(pixels, scale, upscaler)
                if at:  # the first run warms up
                    times_s[form].append(time.process_time() - began_s)
    return {form: median(each) for form, each in times_s.items()}


def _give(engine: "Engine", _model: str) -> "Engine":
    return engine


if __name__ == "__main__":
    main()
