"""Run a batch: several files in flight at once, an outcome for each, until it is stopped.

Loads neither torch nor OpenCV: a batch sets its environment before it loads them.
"""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from upscaled.batch.discovery import Source
from upscaled.upscale.concurrency import Cancellation, Cancelled

if TYPE_CHECKING:
    from upscaled.batch.file_job import FileUpscaler


class Stop:
    """Stop of a batch, for any thread and for a signal's handler.

    requested: set once no further image is to be started. cancellation: ends what is in flight.
    signals: the numbers of those that arrived.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.cancellation = Cancellation()
        self.signals: list[int] = []

    def cancel(self) -> None:
        """Start no further file, and cancel what is in flight at its next tile."""
        self.requested.set()
        self.cancellation.cancel()

    @contextmanager
    def on_signals(self, grace_s: float) -> Iterator[None]:
        """Stop the batch on SIGINT and SIGTERM during the block.

        After the first, what is in flight has `grace_s`; a second ends it, a third the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            self.signals.append(number)
            if len(self.signals) > 1:
                signal.signal(number, signal.SIG_DFL)
            if self.requested.is_set() or not grace_s:
                self.cancel()
                return
            self.requested.set()
            grace = threading.Timer(grace_s, self.cancel)
            grace.daemon = True
            grace.start()

        ending = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in ending}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_batch(sources: Iterator[Source], upscaler: "FileUpscaler", stop: Stop) -> None:
    """Work on every source until there is none or the batch is stopped, and report each outcome.

    A source is drawn when it can be worked on, and `sources` may block. What that or the listener
    raises cancels what is in flight.
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
