"""Slots at workers: how many images, and which of them, one worker may have in flight at once.

Beside the number of a worker's slots two limits hold. Large results share a number of pixels, for
each keeps its canvas until it is encoded. And the last slot is never given to a large image, so
that a small one always finds a worker that it can share with large ones. An image is small if it is
in flight for moments only (`upscaled.pool.cost.CostEstimate`): few pixels, and a fast model.
"""

from dataclasses import dataclass

from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.worker_process import WorkerProcess


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
    """The slots of one worker, some of them in use."""

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
