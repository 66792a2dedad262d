"""Decide where an image is tried next, after its worker died or failed it.

The image may have killed its worker, so at the next attempt it is the only image there. Where the
worker still runs and answered that it failed, the device or the image may be at fault: another
device shows which. A broken device that fails quickly always has the fewest images in flight, and
would otherwise get nearly all new ones.
"""

from dataclasses import dataclass
from typing import Final

from upscaled.pool.messages import Answer, Done, Failed
from upscaled.pool.worker_process import WorkerDied, WorkerProcess

MAX_DEATHS_ALONE: Final = 2
"""Workers that may die with an image as their only one before it is given up; where others were in
flight, those may be at fault."""


@dataclass(slots=True)
class Attempts:
    """Attempts at one image so far.

    is_retry: its worker died, so it must be the only image at the next one. avoided: the
    device of the last attempt; another one is preferred if there is one. failed_at: the worker that
    answered `Failed`.
    """

    is_retry: bool = False
    avoided: str = ""
    failed_at: WorkerProcess | None = None
    _deaths_alone: int = 0

    @property
    def is_given_up(self) -> bool:
        """Return whether `MAX_DEATHS_ALONE` workers died with it as their only image."""
        return self._deaths_alone >= MAX_DEATHS_ALONE

    def note_death(self, worker: WorkerProcess, death: WorkerDied) -> None:
        """Record that a worker died while it upscaled the image."""
        self._deaths_alone += death.was_alone
        self.is_retry, self.avoided = True, worker.device

    def note_answer(self, worker: WorkerProcess, answer: Answer, *, has_other: bool) -> bool:
        """Record a worker's answer, and return whether another device is to be tried.

        An image that another device makes is a fault of the worker that failed it. has_other: a
        worker of another device is ready.
        """
        if isinstance(answer, Failed) and self.failed_at is None and has_other:
            self.failed_at, self.avoided = worker, worker.device
            return True
        return False

    def fault_of(self, worker: WorkerProcess, answer: Answer) -> WorkerProcess | None:
        """Return the worker whose fault an earlier failure was, now that `worker` has answered."""
        is_made = isinstance(answer, Done)
        is_elsewhere = self.failed_at is not None and self.failed_at.device != worker.device
        return self.failed_at if is_made and is_elsewhere else None
