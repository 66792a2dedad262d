"""Stop a batch, on a signal or because it cannot go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from upscaled.upscale.cancellation import Cancellation


class Stop:
    """Stop of a batch, for any thread and for a signal's handler.

    requested: set once nothing new is to be taken. cancellation: ends what is in flight. signals:
    the numbers of those that arrived.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.cancellation = Cancellation()
        self.signals: list[int] = []

    def cancel(self) -> None:
        """Take nothing new, and drop what is in flight at its next tile."""
        self.requested.set()
        self.cancellation.cancel()

    @contextmanager
    def on_signals(self, grace_s: float) -> Iterator[None]:
        """Stop the batch on SIGINT and SIGTERM during the block.

        After the first, what is in flight is finished for at most `grace_s`; a second ends it at
        once, and a third the process.
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
