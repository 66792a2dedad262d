"""Compute a tall window in bands of rows, with the graphs of the module `band_graph`."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import Band, Engine, Started, Window
from upscaled_models.backends.openvino.band_graph import KEPT_ROWS, Position, build_band_graph
from upscaled_models.backends.openvino.graph import finish_window
from upscaled_models.backends.openvino.layers import Floats
from upscaled_models.backends.openvino.ready_graphs import ReadyGraphs
from upscaled_models.backends.openvino.runtime import OpenVino, import_openvino, infer
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.families import Family
from upscaled_models.networks.chain import Chain

_PX_BEFORE_OWN_GRAPH: Final = 4_000_000
"""Pixels of inner bands of a shape by the graph for any size, before a graph is compiled for it
alone: that takes 0.35 s and 33 MB, and saves 10 % of such a band's time in 8 bits, 2 % in bfloat16.
First and last bands are too few for it."""

_MOST_READY: Final = 2
"""Shapes of inner bands that keep a graph of their own."""

PX_BEFORE_BANDS: Final = 6_000_000
"""Pixels of images of several windows before graphs for bands are made: that takes 0.6 s, which
bands save of so many in 8 bits. A program that upscales a few pictures and ends is not delayed."""


@dataclass(frozen=True, slots=True)
class Made:
    """The result of a band: its upper rows, if it has any apart, and those below.

    parts: as of `Levels.values`, a batch of one, in the order of the rows. is_planar: as of
    `Levels`. kept: what the next band begins with.
    """

    parts: list[Floats]
    is_planar: bool
    kept: list[OpenVino]


@dataclass(slots=True)
class BandGraphs:
    """The graphs of a network for bands, made when they are first used.

    hint: as of `ReadyGraphs`, and the type of what is kept. computed_px: of images of several
    windows before there were graphs.
    """

    chain: Chain
    hint: str
    threads: int
    computed_px: int = 0
    _ready: dict[Position, ReadyGraphs] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def are_worth_making(self, px: int) -> bool:
        """Count the pixels of an image; return whether there are graphs, or are to be made now."""
        if self._ready or self.computed_px >= PX_BEFORE_BANDS:
            return True
        self.computed_px += px
        return False

    def compute(
        self,
        position: Position,
        pixels: NDArray[np.uint8],
        kept: Sequence[OpenVino],
        spare: list[OpenVino],
    ) -> Made:
        """Compute one band's pixels, `[1, rows, w, 3]`, behind what the band before it kept.

        spare: tensors of the same shapes as `kept` that are free; empty: there are none.
        """
        ready = self._find(position)
        if ready.any_size is not None and ready.is_rare(pixels.shape):
            ready = ready.any_size
        count = 1 if position is Position.FIRST else 2
        request, parts = _prepare(ready, pixels.shape, count)
        following = [] if position is Position.LAST else spare
        if position is not Position.LAST and not spare:
            following = self._allocate_kept(request, pixels)
        for at, tensor in enumerate(following):
            request.set_output_tensor(at, tensor)
        infer(request, pixels, *kept)
        if ready.is_any_size:
            first = len(following)
            parts = [request.get_output_tensor(at).data for at in range(first, first + count)]
            ready.requests.lend(parts[-1], (pixels.shape, request))
        self._release_memory(position)
        return Made(parts, ready.is_planar, following)

    def _release_memory(self, position: Position) -> None:
        """Free the memory of layers that the next bands do not use: each graph has its own."""
        if position is not Position.INNER:
            self._find(position).release_all_memory()
        if position is Position.LAST:
            inner = self._find(Position.INNER)
            inner.release_all_memory()
            if inner.any_size is not None:
                inner.any_size.release_all_memory()

    def _allocate_kept(self, request: OpenVino, pixels: NDArray[np.uint8]) -> list[OpenVino]:
        """Allocate what a band keeps, which are its first results."""
        width = pixels.shape[2] // self.chain.fold
        return [
            import_openvino().Tensor(
                each.get_element_type(),
                [1, KEPT_ROWS, width, each.get_partial_shape()[3].get_length()],
            )
            for each in request.model_outputs[: len(self.chain.links)]
        ]

    def _find(self, position: Position) -> ReadyGraphs:
        with self._making:
            if position not in self._ready:
                self._ready[position] = self._make(position)
            return self._ready[position]

    def _make(self, position: Position) -> ReadyGraphs:
        # In planes, a result would not be rounded to bfloat16, as it is in the other order.
        is_planar = self.hint == "f32"
        any_size = ReadyGraphs(
            build_band_graph(self.chain, position, is_planar=is_planar, hint=self.hint),
            self.hint,
            self.threads,
            max_shapes=1,
            is_planar=is_planar,
            is_any_size=True,
            fold=self.chain.fold,
        )
        if position is not Position.INNER:
            return any_size
        return ReadyGraphs(
            build_band_graph(self.chain, position, hint=self.hint),
            self.hint,
            self.threads,
            _MOST_READY,
            any_size=any_size,
            px_before_compiling=_PX_BEFORE_OWN_GRAPH,
            fold=self.chain.fold,
        )


def _prepare(
    ready: ReadyGraphs, shape: tuple[int, ...], count: int
) -> tuple[OpenVino, list[Floats]]:
    """Return a request, and the memory of its last results where their size is known."""
    if ready.is_any_size:
        _, kept = ready.requests.take() or (None, None)
        return kept or ready.request(shape), []
    request = ready.request(shape)
    outputs = request.model_outputs
    sizes = [tuple(each.shape) for each in outputs[-count:]]
    ends = np.cumsum([prod(size) for size in sizes])
    memory = np.split(ready.results.allocate((int(ends[-1]),)), ends[:-1])
    parts = [part.reshape(size) for part, size in zip(memory, sizes, strict=True)]
    for at, part in enumerate(parts, len(outputs) - count):
        request.set_output_tensor(at, import_openvino().Tensor(part, shared_memory=True))
    return request, parts


@dataclass(slots=True)
class OpenVinoColumn:
    """A tall window on its way through a network (see `backends.base.Column`).

    exact: the same network in torch, for bands whose results are not finite. scale: of the network.
    kept: what the latest band keeps for the next. spare: what the band before it kept, whose memory
    is used again.
    """

    graphs: BandGraphs
    exact: Engine
    family: Family
    scale: int
    kept: list[OpenVino] = field(default_factory=list)
    spare: list[OpenVino] = field(default_factory=list)

    def start(self, band: Band, reduce: int = 1) -> Started:
        chain = self.graphs.chain
        position = Position.LAST if band.is_last else Position.INNER
        first_row = band.known_rows - chain.rows_below * chain.fold
        if not band.known_rows:
            position, first_row = Position.FIRST, 0
        pixels = np.array(band.window, np.uint8)
        width, moved = pixels.shape[1] // chain.fold, band.moved_px // chain.fold
        try:
            kept, spare = self._fit_kept(width, moved)
            made = self.graphs.compute(position, pixels[None, first_row:], kept, spare)
        except (MemoryError, RuntimeError) as error:  # as in `OpenVinoEngine.start`
            raise EngineOutOfMemory(f"{pixels.shape} in OpenVINO: {error}") from error
        self.kept, self.spare = made.kept, kept
        return _RunningBand(self, pixels, band.made, made, reduce)

    def _fit_kept(self, width: int, moved: int) -> tuple[list[OpenVino], list[OpenVino]]:
        """Return what is kept, as wide as the next band, and memory for what that keeps.

        What the band before did not show is flat, and so zero.
        """
        if not self.kept or (self.kept[0].shape[2] == width and not moved):
            return self.kept, self.spare
        before = self.kept[0].shape[2]
        first, last = max(0, -moved), min(width, before - moved)
        fitted = []
        for tensor in self.kept:
            _, rows, _, channels = tensor.shape
            fitted.append(import_openvino().Tensor(tensor.element_type, [1, rows, width, channels]))
            fitted[-1].data[:] = 0
            fitted[-1].data[:, :, first:last] = tensor.data[:, :, first + moved : last + moved]
        return fitted, []


@dataclass(slots=True)
class _RunningBand:
    """A band whose graph was computed (see `backends.base.Started`)."""

    column: OpenVinoColumn
    pixels: NDArray[np.uint8]
    rows: range
    made: Made
    reduce: int
    is_done: bool = True

    def finish(self) -> list[Window]:
        gain, rows = self.column.scale // self.reduce, self.rows
        if not all(np.isfinite(part.sum()) for part in self.made.parts):
            (whole,) = self.column.exact.start([self.pixels], self.reduce, is_exact=True).finish()
            return [whole[rows.start * gain : rows.stop * gain]]
        finished = np.empty((len(rows) * gain, self.pixels.shape[1] * gain, 3), np.uint8)
        first = rows.start
        for part in self.made.parts:
            last = first + self._count_rows(part)
            finish_window(
                part[0],
                self.pixels,
                self.column.family,
                self.reduce,
                is_planar=self.made.is_planar,
                rows=range(first, last),
                into=finished[(first - rows.start) * gain : (last - rows.start) * gain],
            )
            first = last
        return [finished]

    def _count_rows(self, part: Floats) -> int:
        """Return of how many rows of the window a part is the result."""
        rows = part.shape[2 if self.made.is_planar else 1]
        return int(rows * self.column.graphs.chain.fold)
