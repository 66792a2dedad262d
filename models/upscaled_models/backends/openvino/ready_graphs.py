"""Compile a network's graph for the shapes of its windows, keep what is compiled, and run it."""

import dataclasses
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.result_memory import KeptBlocks, ResultMemory
from upscaled_models.backends.openvino.runtime import (
    Graph,
    OpenVino,
    compile_graph,
    import_openvino,
    infer,
)
from upscaled_models.networks.strips import plan_strips

PX_BEFORE_COMPILING: Final = 1_000_000
"""Pixels of a shape by the graph for any size, before a graph is compiled for it alone. They lose
as much time as compiling takes: that graph is 6 % slower, as it puts its result in order."""

_MOST_COUNTED: Final = 256
"""Limits the shapes whose pixels are counted; the one that was used least recently is dropped."""

ANY_PX: Final = -1
"""Stands for a window's height and width: the graph is compiled once for all of them."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The result of graphs for a batch: float32 `[N, ...]` (see `graph.build_graph`).

    is_planar: it is that of `graph.build_planar_graph`.
    """

    values: NDArray[np.float32]
    is_planar: bool = False


@dataclass(slots=True)
class ReadyGraphs:
    """A graph, compiled for up to `max_shapes` shapes `(N, h, w, C)` of windows.

    hint: "f32" or "bf16", what is computed in beside 8 bits. threads: of the CPU. tail: computes
    the result in strips from the trunk's features, which this graph then returns; None: this graph
    is the whole network. is_any_size: it is compiled once for windows of every height and width.
    is_planar: it returns planes (`graph.build_planar_graph`). any_size: such a graph of the same
    network, for shapes of which it computed less than `px_before_compiling`; None: every shape is
    compiled when it first comes. fold: of a graph for bands, input pixels per pixel and side of
    what is kept. compiled: by shape, the least recently used first. computed_px: of each shape, by
    `any_size`. results: memory of the results of the whole network, compiled for one shape.
    requests: with those compiled for any size, by shape. copying: held while the graph, which
    others may share, is copied.
    """

    graph: Graph
    hint: str
    threads: int
    max_shapes: int
    tail: "ReadyGraphs | None" = None
    is_any_size: bool = False
    is_planar: bool = False
    any_size: "ReadyGraphs | None" = None
    px_before_compiling: int = PX_BEFORE_COMPILING
    fold: int = 1
    compiled: OrderedDict[tuple[int, ...], OpenVino] = field(default_factory=OrderedDict)
    computed_px: OrderedDict[tuple[int, ...], int] = field(default_factory=OrderedDict)
    results: ResultMemory = field(default_factory=ResultMemory)
    requests: KeptBlocks[tuple[tuple[int, ...], OpenVino]] = field(default_factory=KeptBlocks)
    copying: threading.Lock = field(default_factory=threading.Lock)

    def on_fewer_threads(self) -> "ReadyGraphs":
        """Return the same graphs on half of the threads, for a second thread that computes."""
        fewer = max(1, self.threads // 2)
        tail = self.tail.on_fewer_threads() if self.tail else None
        any_size = self.any_size.on_fewer_threads() if self.any_size else None
        ready = dataclasses.replace(self, threads=fewer, tail=tail, any_size=any_size)
        return dataclasses.replace(
            ready, compiled=OrderedDict(), computed_px=OrderedDict(), requests=KeptBlocks()
        )

    def with_any_size(self, planar: Graph) -> "ReadyGraphs":
        """Return the same graphs with one for any size beside them, for shapes that are new.

        planar: of the same network (`graph.build_planar_graph`).
        """
        any_size = dataclasses.replace(
            self, graph=planar, is_planar=True, is_any_size=True, compiled=OrderedDict()
        )
        return dataclasses.replace(self, any_size=any_size)

    def of_side(self, side_px: int) -> "ReadyGraphs":
        """Return the same graphs, compiled for squares of that side only."""
        sides = {(side_px,) * 2, (ANY_PX,) * 2}
        squares = {shape: each for shape, each in self.compiled.items() if shape[1:3] in sides}
        return dataclasses.replace(self, compiled=OrderedDict(squares), computed_px=OrderedDict())

    def has(self, shape: tuple[int, ...]) -> bool:
        return self._compiled_shape(shape) in self.compiled

    def compute(self, pixels: NDArray[np.generic], *, is_tried: bool = False) -> Levels:
        """Compute the network's result for a batch, uint8 `[N, h, w, 3]`.

        is_tried: its time is measured, so it is computed by the graph of its own shape.
        """
        if self.any_size is not None and not is_tried and self.is_rare(pixels.shape):
            return self.any_size.compute(pixels)
        if self.tail is None:
            if self.is_any_size:
                return Levels(self._infer_with_kept_request(pixels), self.is_planar)
            return Levels(self._infer_into_kept_memory(pixels))
        request = self.request(pixels.shape)
        infer(request, pixels)
        made = request.get_output_tensor(0).data
        features = np.array(made)
        del made, request
        self.release_memory(pixels.shape)
        return Levels(self.tail.compute_in_strips(features))

    def compute_in_strips(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute a tail's result `[N, 4h, 4w, 3]` of features `[N, h, w, C]`, strip by strip."""
        count, height, width, channels = features.shape
        rows, strips = plan_strips(height, width)
        shape = (1, rows, width, channels)
        request = self.request(shape)
        levels = np.empty((count, 4 * height, 4 * width, 3), np.float32)
        for at in range(count):
            for strip in strips:
                infer(request, features[at : at + 1, strip.start : strip.start + rows])
                made = request.get_output_tensor(0).data[0]
                above = strip.first - strip.start
                part = made[4 * above : 4 * (above + strip.last - strip.first)]
                levels[at, 4 * strip.first : 4 * strip.last] = part
        del made, part, request
        self.release_memory(shape)
        return levels

    def _infer_into_kept_memory(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Compute a result whose shape is known, as that of the graph's."""
        request = self.request(pixels.shape)
        made = self.results.allocate(tuple(request.model_outputs[0].shape))
        request.set_output_tensor(import_openvino().Tensor(made, shared_memory=True))
        infer(request, pixels)
        return made

    def _infer_with_kept_request(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """Compute a result whose shape depends on the window's.

        OpenVINO would copy it into memory that it is given.
        """
        shape = self._compiled_shape(pixels.shape)
        kept_shape, kept = self.requests.take() or (None, None)
        request = kept if kept is not None and kept_shape == shape else self.request(pixels.shape)
        infer(request, pixels)
        made: NDArray[np.float32] = request.get_output_tensor(0).data
        self.requests.lend(made, (shape, request))
        return made

    def request(self, shape: tuple[int, ...]) -> OpenVino:
        """Make an inference request, and compile the graph for `shape` if need be."""
        shape = self._compiled_shape(shape)
        compiled = self.compiled.pop(shape, None)
        if compiled is None:
            with self.copying:
                graph = self.graph.clone()
            self._reshape(graph, shape)
            compiled = compile_graph(graph, precision=self.hint, threads=self.threads)
            if self.any_size is not None:
                self.any_size.release_all_memory()
        self.compiled[shape] = compiled
        if len(self.compiled) > self.max_shapes:
            self.compiled.popitem(last=False)
        return compiled.create_infer_request()

    def release_memory(self, shape: tuple[int, ...]) -> None:
        """Free the memory of a shape's layers, which OpenVINO reuses; no request may be under way.

        For 512x512 through an RRDB trunk it is 400 MB; to allocate it again takes 1 to 2 % longer.
        """
        self.compiled[self._compiled_shape(shape)].release_memory()

    def release_all_memory(self) -> None:
        """Free the memory of all layers: after its largest windows, it would stay as large.

        For 512x512 at x4 it is 150 MB, most of it the steps that put a result in order.
        """
        for compiled in self.compiled.values():
            compiled.release_memory()

    def is_rare(self, shape: tuple[int, ...]) -> bool:
        """Count a use of a shape without a graph; return whether it has too few to be compiled."""
        if shape in self.compiled:
            return False
        before_px = self.computed_px.pop(shape, 0)
        if before_px >= self.px_before_compiling:
            return False
        self.computed_px[shape] = before_px + math.prod(shape[:3])
        if len(self.computed_px) > _MOST_COUNTED:
            self.computed_px.popitem(last=False)
        return True

    def _reshape(self, graph: Graph, shape: tuple[int, ...]) -> None:
        """Give a graph the shape of its windows; of what is kept, it changes the width alone."""
        pixels, *kept = graph.inputs
        shapes = {pixels: list(map(int, shape))}
        for each in kept:
            sides = each.get_partial_shape()
            sides[2] = ANY_PX if self.is_any_size else int(shape[2]) // self.fold
            shapes[each] = sides
        graph.reshape(shapes)

    def _compiled_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that the graph is compiled for to compute windows of `shape`."""
        if not self.is_any_size:
            return shape
        return (shape[0], ANY_PX, ANY_PX, *shape[3:])
