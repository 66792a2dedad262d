"""Run a batch: several files in flight at once, an outcome for each."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final

from upscaled.batch.discovery import Source
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.in_flight import Stop
from upscaled.batch.outcome import Outcome
from upscaled.config import Settings
from upscaled.upscale.cancellation import Cancelled

MAX_PLACES: Final = 34


def count_in_flight(settings: Settings, windows_at_once: int) -> int:
    """Count the files that are in flight at once; at least `jobs_per_worker`.

    windows_at_once: the most that one batch on the device may have.

    While a batch of windows is on the device, another can be gathered, and files are decoded,
    encoded and written beside both. Each holds its file.
    """
    return max(settings.jobs_per_worker, min(MAX_PLACES, 2 * windows_at_once + 2))


def run_batch(
    sources: Iterator[Source],
    upscaling: FileUpscaler,
    on_outcome: Callable[[Outcome], None],
    stop: Stop,
) -> None:
    """Work on every source until there is none, or until `stop` is asked for.

    Sources are drawn as places become free, so that there may be any number of them. `sources` may
    block; `on_outcome` is called for one outcome at a time, in no order.

    Raises:
        Exception: one of `sources` or `on_outcome`; what is in flight is cancelled then.
    """
    places = count_in_flight(upscaling.settings, upscaling.upscaler.windows_at_once)
    drawing, reporting = threading.Lock(), threading.Lock()

    def draw() -> Source | None:
        with drawing:
            return None if stop.asked.is_set() else next(sources, None)

    def work_alone() -> None:
        while (source := draw()) is not None:
            try:
                outcome = upscaling.work(source)
            except Cancelled:
                return
            with reporting:
                on_outcome(outcome)

    with ThreadPoolExecutor(places, thread_name_prefix="file") as pool:
        tasks = [pool.submit(work_alone) for _ in range(places)]
        wait(tasks, return_when=FIRST_EXCEPTION)
        if any(task.done() and task.exception() for task in tasks):
            stop.now()
    for task in tasks:
        task.result()
