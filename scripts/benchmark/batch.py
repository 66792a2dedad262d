"""Part (f): many files by `upscaled image`, against the network alone on the same windows."""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import psutil

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Facts
from scripts.benchmark.ours import open_upscaler_with, settings_of, upscale_once
from scripts.benchmark.pictures import Pixels, make_pixels
from upscaled.batch.discovery import Finder
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.batch.outcome import Kind, Outcome, Summary
from upscaled.batch.output_store import OutputStore
from upscaled.batch.run import count_in_flight, run_batch
from upscaled.batch.stop import Stop
from upscaled.config import Settings
from upscaled.decoder.pool import count_decoders
from upscaled.upscale.core import open_core
from upscaled.upscale.engines import open_model
from upscaled_models.backends.base import Engine, Started, Window, most_windows

SCALE = 4
MODEL = "upscaled-x4"


def measure_batch(data_dir: Path, effort: Effort, device: str) -> Facts:
    """`effort.batch_images` JPEG files of `effort.batch_px` a side: both ways in turn.

    `ratio`: of the kernel's seconds to the batch's, of the median pair of rounds. `cpu_ratio`: the
    same of processor seconds, those of the decoding processes included: on a machine without a GPU
    it is what `ratio` would be with every core busy and nothing else running.
    """
    entry = Entry("ours", str(data_dir), MODEL, "auto", device=device, is_tuned=not effort.is_tiny)
    settings = settings_of(entry)
    engine = open_model(settings, MODEL)
    sources = data_dir / "batch-in"
    pictures = _write_pictures(sources, effort.batch_images, effort.batch_px)
    windows = [
        window for picture in pictures for window in record_windows(engine, settings, picture)
    ]
    run_windows(engine, windows[: 2 * engine.info.batch])
    kernel, batch = [], []
    for number in range(effort.batch_rounds):
        kernel.append(run_windows(engine, windows))
        batch.append(run_files(engine, settings, sources, data_dir / f"batch-{number}"))
    fastest_s = min(spent.seconds for spent in batch)
    return {
        "images": len(pictures),
        "side_px": effort.batch_px,
        "label": engine.info.label,
        "places": count_in_flight(settings, max(engine.info.batch, engine.info.small_batch)),
        "windows": len(windows),
        "kernel_s": [round(spent.seconds, 3) for spent in kernel],
        "batch_s": [round(spent.seconds, 3) for spent in batch],
        "images_per_s": round(len(pictures) / fastest_s, 3),
        "megapixels_per_s": round(
            len(pictures) * (effort.batch_px * SCALE) ** 2 / 1e6 / fastest_s, 3
        ),
        "ratio": _median_ratio(
            [(a.seconds, b.seconds) for a, b in zip(kernel, batch, strict=True)]
        ),
        "cpu_ratio": _median_ratio(
            [(a.cpu_s, b.cpu_s) for a, b in zip(kernel, batch, strict=True)]
        ),
    }


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds on the clock, and of the processors."""

    seconds: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Spent":
        me = psutil.Process()
        times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
        return cls(time.perf_counter(), sum(each.user + each.system for each in times))

    def since(self) -> "Spent":
        now = Spent.now()
        return Spent(now.seconds - self.seconds, now.cpu_s - self.cpu_s)


def _median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return round(statistics.median(one / other for one, other in pairs), 4)


def run_windows(engine: Engine, windows: Sequence[Window]) -> Spent:
    """What the network alone takes, one batch started ahead, as a scheduler does.

    windows: all of one shape.
    """
    most = most_windows(engine.info, windows[0].shape[0] * windows[0].shape[1])
    started = Spent.now()
    before: Started | None = None
    for at in range(0, len(windows), most):
        batch = engine.start(windows[at : at + most])
        if before is not None:
            before.finish()
        before = batch
    if before is not None:
        before.finish()
    return started.since()


@dataclass(frozen=True, slots=True)
class _Summing:
    """Listener that only counts."""

    summary: Summary

    def on_part(self, source: Path, done_part: float) -> None:
        pass

    def add(self, outcome: Outcome) -> None:
        self.summary.add(outcome)


def run_files(engine: Engine, settings: Settings, sources: Path, results: Path) -> Spent:
    """What it takes from the first look into a folder to the last result on the disk.

    Raises:
        RuntimeError: a file was not upscaled.
    """
    results.mkdir()
    stop, summary = Stop(), Summary()
    with (
        Journal(results / FILE_NAME) as journal,
        OutputStore(results, journal, is_overwriting=False) as store,
        open_core(settings, scales=(SCALE,), open_engine=lambda _: engine) as core,
    ):
        upscaling = FileUpscaler(core, SCALE, store, _Summing(summary), stop.cancellation)
        _wait_for_decoders(upscaling, next(sources.iterdir()).read_bytes())
        started = Spent.now()
        run_batch(Finder(results).find([str(sources)]), upscaling, stop)
        spent = started.since()
    if summary.counts[Kind.UPSCALED] != summary.files:
        raise RuntimeError(summary.describe(spent.seconds))
    return spent


def _wait_for_decoders(upscaling: FileUpscaler, photo: bytes) -> None:
    """They start while a model is loaded, which is not measured either."""
    decoders = count_decoders()
    with ThreadPoolExecutor(decoders) as pool:
        list(pool.map(upscaling.core.decoder.decode, [photo] * decoders))


def record_windows(engine: Engine, settings: Settings, picture: Pixels) -> list[Window]:
    """What the network is given for a picture."""
    recorder = _Recorder(engine)
    with open_upscaler_with(recorder, settings, SCALE) as upscaler:
        upscale_once(picture, SCALE, upscaler)
    return recorder.windows


class _Recorder:
    """An engine that also keeps the windows it is given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.windows: list[Window] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        self.windows += [window.copy() for window in windows]
        return self._engine.start(windows, reduce, is_exact=is_exact)


def _write_pictures(folder: Path, count: int, side_px: int) -> list[Pixels]:
    """Different places of the sample photo, so that no two files are alike."""
    folder.mkdir()
    photo = make_pixels(side_px + count, side_px + count)
    pictures = []
    for number in range(count):
        picture = photo[number : number + side_px, number : number + side_px]
        file = folder / f"{number:04}.jpg"
        if not cv2.imwrite(str(file), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"{file}: cannot be written")
        pictures.append(picture)
    return pictures
