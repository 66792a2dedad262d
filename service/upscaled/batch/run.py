"""Run a batch: several files in flight at once, an outcome for each."""

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from upscaled.batch.discovery import Source
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.stop import Stop
from upscaled.upscale.cancellation import Cancelled


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

    in_flight = upscaler.max_in_flight
    with ThreadPoolExecutor(in_flight, thread_name_prefix="file") as pool:
        tasks = [pool.submit(work_alone) for _ in range(in_flight)]
        wait(tasks, return_when=FIRST_EXCEPTION)
        if any(task.done() and task.exception() for task in tasks):
            stop.cancel()
    for task in tasks:
        task.result()
