"""Slots at workers: which images one worker has in flight, and where a failed one is tried next.

Beside the number of a worker's slots two limits hold. Large results share a number of pixels, for
each keeps its canvas until it is encoded. And the last slot is never given to a large image, so
that a small one always finds a worker that it can share with large ones. An image is small if it is
in flight for moments only (`upscaled.pool.cost.CostEstimate`): few pixels, and a fast model.

An image may have killed its worker, so at the next attempt it is the only image there. Where the
worker still runs and answered that it failed, the device or the image may be at fault: another
device shows which. A broken device that fails quickly always has the fewest images in flight, and
would otherwise get nearly all new ones.
"""

from dataclasses import dataclass
from typing import Final

from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.worker_process import WorkerDied, WorkerProcess

MAX_DEATHS_ALONE: Final = 2
"""Workers that may die with an image as their only one before it is given up; where others were in
flight, those may be at fault."""


@dataclass(slots=True, eq=False)
class Slot:
    """Slot of one image at a worker.

    is_exclusive: no other image is at the worker meanwhile. is_small: it uses a slot and none of
    the pixels that large results share. done_part: the part of its tiles that is done, 0 to 1.
    """

    worker: WorkerProcess
    request: UpscaleRequest
    is_exclusive: bool
    is_small: bool = False
    done_part: float = 0

    def note_tile(self, done: int, total: int) -> None:
        """Record the tiles that are done, and report them to the caller."""
        self.done_part = done / max(1, total)
        if self.request.on_tile:
            self.request.on_tile(done, total)


class WorkerSlots:
    def __init__(self, slots: int, canvas_px: int) -> None:
        self._slots = slots
        self._canvas_px = canvas_px
        self.in_use: set[Slot] = set()

    def fits(self, result_px: int, *, is_small: bool, is_exclusive: bool) -> bool:
        """Return whether this worker has a slot for one more image; see the module."""
        if is_exclusive or not self.in_use:
            return not self.in_use
        if len(self.in_use) >= self._slots or any(slot.is_exclusive for slot in self.in_use):
            return False
        if is_small:
            return True
        large_px = [slot.request.result_px for slot in self.in_use if not slot.is_small]
        if not large_px:
            return True
        return len(large_px) < self._slots - 1 and sum(large_px) + result_px <= self._canvas_px


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

    def note_failure(self, worker: WorkerProcess, *, has_other: bool) -> bool:
        """Record that a worker failed the image, and return whether another device is to be tried.

        has_other: a worker of another device is ready.
        """
        if self.failed_at is not None or not has_other:
            return False
        self.failed_at, self.avoided = worker, worker.device
        return True

    def find_faulty(self, worker: WorkerProcess) -> WorkerProcess | None:
        """Return the worker at fault, now that `worker` made the image: one of another device."""
        is_elsewhere = self.failed_at is not None and self.failed_at.device != worker.device
        return self.failed_at if is_elsewhere else None
