"""Part `batch`: a folder of files, against the network alone."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import MODEL, SCALE, Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.ours import settings_of
from scripts.benchmark.pictures import JPEG_QUALITY, make_pixels
from upscaled.batch.discovery import Finder
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.batch.outcome import Kind, Summary
from upscaled.batch.output_folder import OutputFolder
from upscaled.batch.output_store import OutputStore
from upscaled.batch.run import Stop, run_batch
from upscaled.config import Settings
from upscaled.decoder.pool import count_decoders
from upscaled.upscale.engines import open_model
from upscaled.upscale.opening import open_core
from upscaled_models.backends.base import Engine, Started, Window, most_windows


def measure_batch(data_dir: Path, effort: Effort, device: str) -> Figures:
    """Upscale `effort.batch_images` JPEG files of `effort.photo_px` a side, both ways in turn.

    `ratio`: of the network's seconds to the batch's, of the median pair of rounds. `cpu_ratio`: the
    same of processor seconds, those of the decoding processes included: on a machine without a GPU
    it is what `ratio` would be with every core busy and nothing else running.
    """
    is_tuned = not effort.is_tiny
    entry = Entry("ours:Ours", str(data_dir), MODEL, "auto", device, is_tuned=is_tuned)
    settings = settings_of(entry)
    engine = open_model(settings, MODEL)
    sources, side_px, images = data_dir / "batch-in", effort.photo_px, effort.batch_images
    pictures = _cut_sample(images, side_px)
    sources.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(sources / f"{number:04}.jpg", quality=JPEG_QUALITY)
    most = most_windows(engine.info, side_px**2)
    _run_network(engine, pictures[: 2 * engine.info.batch], most)
    rounds = []
    for at in range(effort.rounds):
        network = _run_network(engine, pictures, most)
        rounds.append((network, _run_files(settings, sources, data_dir / f"batch-{at}")))
    spent = np.array(rounds)
    ratio, cpu_ratio = np.median(spent[:, 0] / spent[:, 1], axis=0).round(4).tolist()
    network_s, batch_s = spent[:, :, 0].T.round(3).tolist()
    images_per_s = images / spent[:, 1, 0].min()
    return {
        "images": images,
        "side_px": side_px,
        "label": engine.info.label,
        "network_s": network_s,
        "batch_s": batch_s,
        "images_per_s": round(images_per_s, 3),
        "megapixels_per_s": round(images_per_s * (side_px * SCALE) ** 2 / 1e6, 3),
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
    }


def _cut_sample(count: int, side_px: int) -> list[Window]:
    """Cut the sample photo at different places, so that no two pictures are alike."""
    photo = make_pixels(side_px + count, side_px + count)
    return [photo[at : at + side_px, at : at + side_px].copy() for at in range(count)]


def _read_clocks() -> NDArray[np.float64]:
    """Return seconds of the clock, and those of processors with the children's."""
    below = psutil.Process().children(recursive=True)
    children_s = sum(sum(each.cpu_times()[:2]) for each in below)
    return np.array([time.perf_counter(), time.process_time() + children_s])


def _run_network(engine: Engine, pictures: Sequence[Window], size: int) -> NDArray[np.float64]:
    """Run the network alone in batches of a size, one started ahead, as a scheduler does.

    Each picture is one window: the network sees no more of it than its tiles.
    """
    before_s, started = _read_clocks(), deque[Started]()
    for at in range(0, len(pictures), size):
        started.append(engine.start(pictures[at : at + size]))
        if len(started) > 1:
            started.popleft().finish()
    started.popleft().finish()
    return _read_clocks() - before_s


class _Counting(Summary):
    """Listener of a batch that counts its outcomes."""

    def on_part(self, source: str, done_part: float) -> None: ...


def _run_files(settings: Settings, sources: Path, results: Path) -> NDArray[np.float64]:
    """Run the command's batch from the first look into a folder to the last result on the disk.

    Raises:
        RuntimeError: a file was not upscaled.
    """
    results.mkdir()
    stop, summary = Stop(), _Counting()
    with (
        Journal(results / FILE_NAME) as journal,
        OutputStore(OutputFolder(results, journal), is_overwriting=False) as store,
        open_core(settings, scales=(SCALE,)) as core,
    ):
        upscaling = FileUpscaler(core, SCALE, store, summary, stop.cancellation)
        # Decoders start while a model is loaded, which is not measured either.
        decoders = count_decoders()
        photo = next(sources.iterdir()).read_bytes()
        with ThreadPoolExecutor(decoders) as pool:
            list(pool.map(core.decoder.decode, [photo] * decoders))
        started = _read_clocks()
        run_batch(Finder(results).find([str(sources)]), upscaling, stop)
        spent = _read_clocks() - started
    if summary.counts[Kind.UPSCALED] != summary.files:
        raise RuntimeError(summary.describe(spent[0]))
    return spent
