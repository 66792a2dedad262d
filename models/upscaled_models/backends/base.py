"""What the rest of the service knows of a network: windows in, windows out."""

from collections.abc import Sequence
from typing import Protocol

from upscaled.image.pixels import Pixels

Window = Pixels
"""Pixels `[h, w, 3]`, RGB. Engines give results of the type they are given, and compute those of 16
bits a channel in float32."""


class EngineOutOfMemory(Exception):
    """The device has no room for a window of this size; a smaller one may still fit."""


class Started(Protocol):
    """A batch under way. `is_done`: whether `finish` would return at once."""

    @property
    def is_done(self) -> bool: ...

    def finish(self) -> list[Window]:
        """Wait for the device: one result for each window, in their order.

        To be called once.

        Raises:
            EngineOutOfMemory: the caller may start again with fewer or smaller windows.
            InternalError: the network's result is not finite, not even in float32.
        """
        ...


class Engine(Protocol):
    """A network on a device.

    model: the registry's name. native_scale: the network's own factor. window_px: the longest
    window side it is given. halo_px: input pixels around a core that the result depends on.
    multiple_px: window sides are a multiple of it. shape_step_px: a multiple of `multiple_px`;
    where an image takes several windows, sides that are multiples of it keep shapes few. batch:
    most windows of the longest side in one `start`; small_batch: most of any side, see
    `most_windows`. label: what runs and in which precision, as "torch float32".
    proof: how near its picture is to float32's, in words; empty where it was not compared.
    aside: the same network, for another thread to run small windows by while this one is at work;
    None where the device does one thing after the other.
    """

    @property
    def native_scale(self) -> int: ...
    @property
    def window_px(self) -> int: ...
    @property
    def halo_px(self) -> int: ...
    @property
    def multiple_px(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def shape_step_px(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def small_batch(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def proof(self) -> str: ...
    @property
    def aside(self) -> "Engine | None": ...

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        """Set a batch of windows going: at once here, or on the device behind what is under way.

        Args:
            windows: `[h, w, 3]` of one shape and type, RGB, sides multiples of `multiple_px`; 1 to
                `most_windows` of them. They are not read any more when this returns.
            reduce: average squares of `reduce` x `reduce` result pixels into one, before rounding;
                divides `native_scale`.
            is_exact: compute in float32, whatever the precision this engine was opened in. Windows
                of 16 bits a channel always are.

        Returns:
            what gives `[h * native_scale / reduce, w * native_scale / reduce, 3]` for each, of the
                windows' type.

        Raises:
            EngineOutOfMemory: as `Started.finish`.
            InternalError: as `Started.finish`.
        """
        ...


def most_windows(engine: Engine, px: int) -> int:
    """How many windows of `px` pixels each may be in one `start`.

    As many pixels as `batch` windows of the longest side have, where `small_batch` allows so many.
    """
    like_full = engine.batch * engine.window_px**2 // px
    return max(engine.batch, min(engine.small_batch, like_full))


def least_window_px(halo_px: int, multiple_px: int) -> int:
    """The smallest window that still keeps a core of one multiple between its halos."""
    return round_up(2 * halo_px, multiple_px) + multiple_px


def round_up(number: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple
