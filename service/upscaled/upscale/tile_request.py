"""Windows that wait for a device, each with its result, and the queue of those of one image."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, cast

from upscaled.virtual_time import Flow, VirtualClock
from upscaled_models.backends.base import Band, Engine, Started, Window

FAST_PATH_PX: Final = 192 * 192
"""Largest area of an image for the fast path, where a network of ours takes 0.1 s for it on two
cores."""
USUAL_S_PER_PX: Final = 0.1 / FAST_PATH_PX
"""Seconds for a pixel through an engine of which nothing is known."""
FAST_PATH_S: Final = 0.6
"""Most seconds of an image for the fast path, which has half of the cores only. A slow
network takes it for 64 x 64 px on two cores in float32, and for 120 x 120 px in 8 bits."""


class TileResult:
    """The result of one window, or the error in its place; its last step is run by its image.

    That step needs no device. What the result is made of is dropped with it, although others may
    still hold the window's request; an error, too, since frames of its traceback hold that request,
    and with it they would keep the image's pixels until garbage is collected.
    """

    def __init__(self, outcome: Started | BaseException) -> None:
        self._outcome = [outcome]

    def finish(self) -> Window:
        """Return the result, once; raises the error, or as `Started.finish`."""
        if isinstance(self._outcome[0], BaseException):
            raise cast(BaseException, self._outcome.pop())
        return cast(Started, self._outcome.pop()).finish()[0]


@dataclass(frozen=True, slots=True, eq=False)
class TileRequest:
    """One window that waits to go through an engine.

    is_last: the last window of its image. s_per_px: seconds that the device should take for one
    pixel of it. band: what of a column it is; None: a window by itself.
    """

    queue: "ImageQueue"
    engine: Engine
    window: Window
    reduce: int
    is_exact: bool
    is_last: bool = True
    s_per_px: float = USUAL_S_PER_PX
    band: Band | None = None
    result: Future[TileResult] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """Have waiting for the result raise an error, unless there is a result."""
        if not self.result.done():
            self.result.set_result(TileResult(error))

    @property
    def size_px(self) -> tuple[int, int]:
        """Return the height and width of what is computed: of a band, its own rows."""
        height, width = self.window.shape[:2]
        return height - (0 if self.band is None else self.band.known_rows), width

    @property
    def px(self) -> int:
        height, width = self.size_px
        return height * width

    @property
    def cost_s(self) -> float:
        return self.px * self.s_per_px

    @property
    def fits_fast_path(self) -> bool:
        """Return whether its engine has a fast path, and its image needs little in all."""
        is_small = self.queue.total_px <= FAST_PATH_PX and self.queue.total_s <= FAST_PATH_S
        return (
            self.is_last and is_small and self.band is None and self.engine.concurrent is not None
        )

    def goes_with(self, other: "TileRequest") -> bool:
        """Return whether both may be in one batch."""
        return (
            self.engine is other.engine
            and self.band is None
            and other.band is None
            and self.window.shape == other.window.shape
            and self.window.dtype == other.window.dtype
            and self.reduce == other.reduce
            and self.is_exact == other.is_exact
        )


@dataclass(slots=True, eq=False, weakref_slot=True)
class KeyFlow(Flow):
    """The images of one API key in flight; `waiting`: how many of them have windows that wait."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    waiting: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class ImageQueue(Flow):
    """The windows of one image that wait.

    total_px, total_s: pixels of all windows so far, and the seconds they should take. device_s:
    device seconds so far. is_left: it refuses further windows.
    """

    number: int
    key: KeyFlow
    total_px: int = 0
    total_s: float = 0
    device_s: float = 0
    is_left: bool = False
    requests: deque[TileRequest] = field(default_factory=deque)
