"""Part `batch`: many files by `upscaled image`, against the network alone on the same pictures."""

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
from scripts.benchmark.machine import Figures
from scripts.benchmark.ours import settings_of
from scripts.benchmark.pictures import Pixels, make_pixels
from upscaled.batch.discovery import Finder
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.batch.outcome import Kind, Outcome, Summary
from upscaled.batch.output_folder import OutputFolder
from upscaled.batch.output_store import OutputStore
from upscaled.batch.run import run_batch
from upscaled.batch.stop import Stop
from upscaled.config import Settings
from upscaled.decoder.pool import count_decoders
from upscaled.upscale.engines import open_model
from upscaled.upscale.opening import open_core
from upscaled_models.backends.base import Engine, Started, most_windows

SCALE = 4
MODEL = "upscaled-x4"


def measure_batch(data_dir: Path, effort: Effort, device: str) -> Figures:
    """Upscale `effort.batch_images` JPEG files of `effort.batch_px` a side, both ways in turn.

    `ratio`: of the network's seconds to the batch's, of the median pair of rounds. `cpu_ratio`: the
    same of processor seconds, those of the decoding processes included: on a machine without a GPU
    it is what `ratio` would be with every core busy and nothing else running.
    """
    settings = settings_of(
        Entry("ours", str(data_dir), MODEL, "auto", device, is_tuned=not effort.is_tiny)
    )
    engine = open_model(settings, MODEL)
    sources = data_dir / "batch-in"
    pictures = _write_pictures(sources, effort.batch_images, effort.batch_px)
    run_network(engine, pictures[: 2 * engine.info.batch])
    network, batch = [], []
    for number in range(effort.batch_rounds):
        network.append(run_network(engine, pictures))
        batch.append(run_files(settings, sources, data_dir / f"batch-{number}"))
    fastest_s = min(spent.seconds for spent in batch)
    megapixels = len(pictures) * (effort.batch_px * SCALE) ** 2 / 1e6
    pairs = list(zip(network, batch, strict=True))
    return {
        "images": len(pictures),
        "side_px": effort.batch_px,
        "label": engine.info.label,
        "network_s": [round(spent.seconds, 3) for spent in network],
        "batch_s": [round(spent.seconds, 3) for spent in batch],
        "images_per_s": round(len(pictures) / fastest_s, 3),
        "megapixels_per_s": round(megapixels / fastest_s, 3),
        "ratio": round(statistics.median(one.seconds / two.seconds for one, two in pairs), 4),
        "cpu_ratio": round(statistics.median(one.cpu_s / two.cpu_s for one, two in pairs), 4),
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


def run_network(engine: Engine, pictures: Sequence[Pixels]) -> Spent:
    """Run the network alone on pictures of one size, one batch started ahead, as a scheduler does.

    Each is one window: the network sees no more of a picture than its tiles.
    """
    most = most_windows(engine.info, pictures[0].shape[0] * pictures[0].shape[1])
    started = Spent.now()
    before: Started | None = None
    for at in range(0, len(pictures), most):
        batch = engine.start(pictures[at : at + most])
        if before is not None:
            before.finish()
        before = batch
    if before is not None:
        before.finish()
    return started.since()


@dataclass(frozen=True, slots=True)
class _Counting:
    """Listener of a batch that counts its outcomes."""

    summary: Summary

    def on_part(self, source: str, done_part: float) -> None:
        pass

    def add(self, outcome: Outcome) -> None:
        self.summary.add(outcome)


def run_files(settings: Settings, sources: Path, results: Path) -> Spent:
    """Run the command's batch from the first look into a folder to the last result on the disk.

    Raises:
        RuntimeError: a file was not upscaled.
    """
    results.mkdir()
    stop, summary = Stop(), Summary()
    with (
        Journal(results / FILE_NAME) as journal,
        OutputStore(OutputFolder(results, journal), is_overwriting=False) as store,
        open_core(settings, scales=(SCALE,)) as core,
    ):
        upscaling = FileUpscaler(core, SCALE, store, _Counting(summary), stop.cancellation)
        # Decoders start while a model is loaded, which is not measured either.
        decoders = count_decoders()
        photo = next(sources.iterdir()).read_bytes()
        with ThreadPoolExecutor(decoders) as pool:
            list(pool.map(core.decoder.decode, [photo] * decoders))
        started = Spent.now()
        run_batch(Finder(results).find([str(sources)]), upscaling, stop)
        spent = started.since()
    if summary.counts[Kind.UPSCALED] != summary.files:
        raise RuntimeError(summary.describe(spent.seconds))
    return spent


def _write_pictures(folder: Path, count: int, side_px: int) -> list[Pixels]:
    """Cut the sample photo at different places, so that no two files are alike."""
    folder.mkdir()
    photo = make_pixels(side_px + count, side_px + count)
    pictures = []
    for number in range(count):
        picture = photo[number : number + side_px, number : number + side_px]
        file = folder / f"{number:04}.jpg"
        if not cv2.imwrite(str(file), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"{file}: cannot be written")
        pictures.append(picture.copy())
    return pictures
