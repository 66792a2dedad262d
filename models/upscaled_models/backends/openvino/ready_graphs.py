"""Keep a network's graph compiled for the shapes of windows that come, and compute with it."""

import dataclasses
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.runtime import Graph, OpenVino, compile_graph
from upscaled_models.networks.strips import plan_strips

RUNS_BEFORE_COMPILING: Final = 4
"""Runs of a shape through the graph for any, before it gets its own: in windows of 416 px they lose
what compiling takes, as that graph is 5 to 11 % slower (one more step lays its result out)."""

_MOST_COUNTED: Final = 256

ANY_PX: Final = -1
"""Stands for a window's height and width: the graph is compiled once for all of them."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The result of graphs for a batch: float32 `[N, ...]` (see `graph.build_graph`).

    owner: what the memory of `values` belongs to, and must live as long as they do.
    """

    values: NDArray[np.float32]
    owner: OpenVino = None


@dataclass(slots=True)
class ReadyGraphs:
    """A graph compiled for shapes `(N, h, w, C)`, the last `max_shapes` of which are kept.

    hint: "f32" or "bf16", what is computed in beside 8 bits. threads: of the CPU. copying: held
    while the graph is copied, which others may share. tail: takes what this graph makes, its
    trunk's features, in strips; None: this graph is the whole network. takes_any_size: it is
    compiled once for windows of every height and width. for_new: the same graph for any size, for
    shapes that came seldom; None: each is compiled as it comes. runs: how often those came.
    """

    graph: Graph
    hint: str
    threads: int
    max_shapes: int
    tail: "ReadyGraphs | None" = None
    takes_any_size: bool = False
    for_new: "ReadyGraphs | None" = None
    kept: OrderedDict[tuple[int, ...], OpenVino] = field(default_factory=OrderedDict)
    runs: OrderedDict[tuple[int, ...], int] = field(default_factory=OrderedDict)
    copying: threading.Lock = field(default_factory=threading.Lock)

    def on_fewer_threads(self) -> "ReadyGraphs":
        """Return the same graphs on half of the threads, for a second thread that computes."""
        fewer = max(1, self.threads // 2)
        tail = self.tail.on_fewer_threads() if self.tail else None
        for_new = self.for_new.on_fewer_threads() if self.for_new else None
        ready = dataclasses.replace(self, threads=fewer, tail=tail, for_new=for_new)
        return dataclasses.replace(ready, kept=OrderedDict(), runs=OrderedDict())

    def with_graph_for_new(self) -> "ReadyGraphs":
        """Return the same graphs with one for any size beside them, for shapes that are new."""
        for_new = dataclasses.replace(self, takes_any_size=True, kept=OrderedDict())
        return dataclasses.replace(self, for_new=for_new)

    def of_side(self, side_px: int) -> "ReadyGraphs":
        """Return the same graphs, with compiled shapes kept for squares of that side only."""
        sides = {(side_px,) * 2, (ANY_PX,) * 2}
        kept = {shape: each for shape, each in self.kept.items() if shape[1:3] in sides}
        return dataclasses.replace(self, kept=OrderedDict(kept), runs=OrderedDict())

    def has(self, shape: tuple[int, ...]) -> bool:
        return self._compiled_shape(shape) in self.kept

    def compute(self, pixels: NDArray[np.generic], *, is_tried: bool = False) -> Levels:
        """Compute the network's result for a batch, uint8 `[N, h, w, 3]`.

        is_tried: its time is measured: not by a graph that would soon be replaced.
        """
        if self.for_new is not None and not is_tried and self._is_rare(pixels.shape):
            return self.for_new.compute(pixels)
        request = self.request(pixels.shape)
        request.infer([pixels], share_inputs=True)
        made = request.get_output_tensor(0).data
        if self.tail is None:
            return Levels(made, request)
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
                request.infer(
                    [features[at : at + 1, strip.start : strip.start + rows]], share_inputs=True
                )
                made = request.get_output_tensor(0).data[0]
                above = strip.first - strip.start
                kept = made[4 * above : 4 * (above + strip.last - strip.first)]
                levels[at, 4 * strip.first : 4 * strip.last] = kept
        del made, kept, request
        self.release_memory(shape)
        return levels

    def request(self, shape: tuple[int, ...]) -> OpenVino:
        """Make an inference request, compiled for `shape` where that is not kept."""
        shape = self._compiled_shape(shape)
        compiled = self.kept.pop(shape, None)
        if compiled is None:
            with self.copying:
                graph = self.graph.clone()
            graph.reshape([int(side) for side in shape])
            compiled = compile_graph(graph, precision=self.hint, threads=self.threads)
        self.kept[shape] = compiled
        if len(self.kept) > self.max_shapes:
            self.kept.popitem(last=False)
        return compiled.create_infer_request()

    def release_memory(self, shape: tuple[int, ...]) -> None:
        """Free what OpenVINO keeps of a shape's layers for its next request; none may be under way.

        For 512x512 through an RRDB trunk that is 400 MB; to take it anew costs 1 to 2 % of time.
        """
        self.kept[self._compiled_shape(shape)].release_memory()

    def _is_rare(self, shape: tuple[int, ...]) -> bool:
        """Count a shape that is not kept, and return whether it came too seldom to be compiled."""
        if shape in self.kept:
            return False
        runs = self.runs.pop(shape, 0) + 1
        if runs > RUNS_BEFORE_COMPILING:
            return False
        self.runs[shape] = runs
        if len(self.runs) > _MOST_COUNTED:
            self.runs.popitem(last=False)
        return True

    def _compiled_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a graph for windows of `shape` is compiled for, and kept by."""
        if not self.takes_any_size:
            return shape
        return (shape[0], ANY_PX, ANY_PX, *shape[3:])
