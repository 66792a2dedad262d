"""The interface of every backend: an engine, from windows of pixels to windows of pixels.

load_network ─▶ LoadedModel ─▶ a backend opens it ─▶ Engine
                                                      .start(windows) ─▶ Started
                                                                          .finish() ─▶ windows
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from upscaled_models.registry import ModelSpec

if TYPE_CHECKING:  # tiling and scheduling import this module without torch
    from torch import nn

Window = NDArray[np.uint8 | np.uint16]
"""Pixels `[h, w, 3]`, RGB. Results have the type of their source; 16 bits a channel are always
computed in float32."""


def is_deep(window: NDArray[np.generic]) -> bool:
    """Return whether a channel of the window has 16 bits."""
    return window.dtype == np.uint16


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory, before a backend opens it.

    network: in float32 on the CPU, weights mixed and filled in; engines copy it, or read its
    `state_dict`. window_px: the usual longest side of a window. weights: the file that `network`
    was read from, beside which the model may lie in 8 bits; None for a mix of two files. denoise:
    the share of the first network in a mix of two.
    """

    spec: ModelSpec
    network: "nn.Module"
    window_px: int
    weights: Path | None = None
    denoise: float = 1.0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The model that an engine runs, and the sizes in which it does.

    label: the backend and its precision, as "torch float32". window_px: the longest side of a
    square window that it is given; where it `takes_new_shapes`, of others up to twice that, with no
    more pixels. shape_step_px: a multiple of the model's own multiple; where an image takes several
    windows, sides that are multiples of it keep the number of different shapes small. batch: most
    windows of the longest side in one `start`. small_batch: most windows of any side in one
    `start` (`most_windows`). takes_new_shapes: a shape that is new takes no longer than one that
    came before, or a few ms; else it is made ready first, or searched for the fastest kernels.
    proof: how near its picture is to float32's, in words; empty where the two were not compared.
    computes_bands: the engine is a `BandEngine`.
    """

    spec: ModelSpec
    label: str
    window_px: int
    shape_step_px: int
    batch: int = 1
    small_batch: int = 1
    takes_new_shapes: bool = False
    proof: str = ""
    computes_bands: bool = False

    @property
    def model(self) -> str:
        return self.spec.name


class Started(Protocol):
    """A batch under way. `is_done`: whether `finish` would return at once."""

    @property
    def is_done(self) -> bool: ...

    def finish(self) -> list[Window]:
        """Wait for the device and return one result for each window, in order; call it once.

        Raises:
            EngineOutOfMemory: the caller may start again with fewer or smaller windows.
            ResultNotFinite: the network's result is not finite, not even in float32.
        """
        ...


class Engine(Protocol):
    """A network on a device.

    concurrent: the same network for a second thread, which runs small windows meanwhile; None
    where the device computes one batch after the other.
    """

    @property
    def info(self) -> EngineInfo: ...
    @property
    def concurrent(self) -> "Engine | None": ...

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        """Start a batch: computed at once on a CPU, queued behind earlier batches on a GPU.

        Its results are `[h * native_scale / reduce, w * native_scale / reduce, 3]`; it may raise
        what `Started.finish` does.

        Args:
            windows: `[h, w, 3]` of one shape and type, RGB, sides multiples of the model's
                `multiple_px`; 1 to `most_windows` of them. They are not read after this returns.
            reduce: average squares of `reduce` x `reduce` result pixels into one, before rounding;
                divides the model's `native_scale`.
            is_exact: compute in float32, whatever the precision this engine was opened in.
        """
        ...


class Column(Protocol):
    """A tall window that goes through an engine in bands of rows, from the top down."""

    def start(self, band: "Band", reduce: int = 1) -> Started:
        """Start a band; its result are the rows `band.made`, and otherwise as of `Engine.start`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A band of a column: rows that go through an engine after those above them.

    window: `[h, w, 3]`, uint8: the band's own rows, and above them those that its result depends
    on, as far as the column has them. known_rows: rows at its top that the bands before had; 0 in
    the first. made: the rows of the window whose result is returned: down to as far above its end
    as a result looks, and in the last band down to the end. A column has two bands or more.
    moved_px: how far its left side lies to the right of that of the band before. Where bands begin
    and end elsewhere, everything beyond their sides is flat, and the network keeps colours.
    """

    column: Column
    window: Window
    known_rows: int
    made: range
    is_last: bool
    moved_px: int = 0


@runtime_checkable
class BandEngine(Engine, Protocol):
    """An engine that computes tall windows in bands, no row of them twice."""

    def prefers_bands(self, px: int) -> bool:
        """Count an image of several windows; return whether it is to go through in bands.

        What bands need may take longer to be made than they save of the first images.
        """
        ...

    def open_column(self) -> Column:
        """Open a column; its bands must come in order, without one left out."""
        ...


class Tunable(Engine, Protocol):
    """An engine that the autotuner can try."""

    def strict(self) -> Self:
        """Return the same engine, which raises `ResultNotFinite` instead of using float32.

        An engine that is tried must show that it never needs to.
        """
        ...

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        """Return the same engine with another `window_px`, `batch` and `proof`, not strict."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that was finished when it was started."""

    windows: list[Window]
    is_done: bool = True

    def finish(self) -> list[Window]:
        return self.windows


def most_windows(info: EngineInfo, px: int) -> int:
    """Return how many windows of `px` pixels each may be in one `start`.

    As many pixels as `batch` windows of the longest side have, where `small_batch` allows so many.
    """
    like_full = info.batch * info.window_px**2 // px
    return max(info.batch, min(info.small_batch, like_full))


def least_window_px(halo_px: int, multiple_px: int) -> int:
    """Return the smallest window that still keeps a core of one multiple between its halos."""
    return round_up(2 * halo_px, multiple_px) + multiple_px


def round_up(number: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below `number`."""
    return -(-number // multiple) * multiple
