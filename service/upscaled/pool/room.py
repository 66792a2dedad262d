"""How much one worker may have under way at once.

Two bounds beside the number of places: large results share a limit in pixels, for each keeps its
canvas until it is encoded; and the last place is never a large one's, so that a small image always
finds a worker whose large ones it can share the device with. Small is what is under way for moments
only (`upscaled.pool.cost.Estimate`): a result of few pixels, by a fast model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from upscaled.config import MAX_OUTPUT_SIDE_PX
from upscaled.pool.executor import UpscaleRequest

if TYPE_CHECKING:
    from upscaled.pool.worker_process import WorkerProcess

LARGE_RESULTS_PX: Final = 2 * MAX_OUTPUT_SIDE_PX**2
"""All large results of one worker together: 216 MB of canvas. One alone may be of any size."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One image's place at a worker; `is_alone`: it shares the worker with nobody.

    is_small: it is counted, and its result's pixels are not.
    """

    worker: "WorkerProcess"
    request: UpscaleRequest
    is_alone: bool
    is_small: bool = False


class Room:
    """The places of one worker."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken: set[Place] = set()

    @property
    def taken(self) -> int:
        return len(self._taken)

    def fits(self, result_px: int, *, is_small: bool, is_alone: bool) -> bool:
        """Whether one more image may come in."""
        if is_alone or not self._taken:
            return not self._taken
        if len(self._taken) >= self._places or any(place.is_alone for place in self._taken):
            return False
        if is_small:
            return True
        large_px = [place.request.result_px for place in self._taken if not place.is_small]
        if not large_px:
            return True
        return len(large_px) < self._places - 1 and sum(large_px) + result_px <= LARGE_RESULTS_PX

    @property
    def has_place(self) -> bool:
        """Whether there is one for a small image at least."""
        return self.fits(0, is_small=True, is_alone=False)

    def take(self, place: Place) -> None:
        self._taken.add(place)

    def free(self, place: Place) -> None:
        self._taken.discard(place)
