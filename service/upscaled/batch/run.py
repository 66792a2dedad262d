"""Run a batch: several files in flight at once, an outcome for each."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from upscaled.batch.discovery import Source
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.stop import Stop
from upscaled.config import Settings
from upscaled.upscale.cancellation import Cancelled


def count_in_flight(settings: Settings, max_in_flight: int) -> int:
    """Count the files that are in flight at once; at least `jobs_per_worker`.

    While a batch of windows is on the device, another can be gathered, and files are decoded,
    encoded and written beside both. Each holds its file.

    Args:
        max_in_flight: as many images as keep the device at work (`Core.max_in_flight`).
    """
    return max(settings.jobs_per_worker, max_in_flight)


def run_batch(sources: Iterator[Source], upscaler: FileUpscaler, stop: Stop) -> None:
    """Work on every source until there is none or the batch is stopped, and report each outcome.

    A source is drawn when it can be worked on, so there may be any number of them, and `sources`
    may block.

    Raises:
        Exception: one of `sources` or the listener; what is in flight is cancelled then.
    """
    drawing, reporting = threading.Lock(), threading.Lock()

    def draw() -> Source | None:
        with drawing:
            return None if stop.requested.is_set() else next(sources, None)

    def work_alone() -> None:
        while (source := draw()) is not None:
            try:
                outcome = upscaler.work(source)
            except Cancelled:
                return
            with reporting:
                upscaler.listener.add(outcome)

    in_flight = count_in_flight(upscaler.core.settings, upscaler.core.max_in_flight)
    with ThreadPoolExecutor(in_flight, thread_name_prefix="file") as pool:
        tasks = [pool.submit(work_alone) for _ in range(in_flight)]
        wait(tasks, return_when=FIRST_EXCEPTION)
        if any(task.done() and task.exception() for task in tasks):
            stop.cancel()
    for task in tasks:
        task.result()
