"""Batches through a GPU: bytes up, network, bytes down, each in a stream of its own.

While one batch computes, the next is on its way up and the one before on its way down. A shape that
comes a second time is captured in a graph: the device then runs all of a network's kernels by
itself, where launching them one by one takes longer than small windows compute.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from upscaled_models.backends.base import Window
from upscaled_models.backends.torch.streams import Moment, Seam, Tensors

MAX_GRAPHS: Final = 8
"""Graphs kept; each holds its input, and all share the memory between it and the result."""

MAX_SEEN: Final = 256
"""Shapes remembered that came once."""

Key = tuple[tuple[int, ...], int]
Value = TypeVar("Value")
Compute = Callable[[Tensor, int], Tensors]


@dataclass(frozen=True, slots=True)
class Graph:
    """Captured work. source: where its input is put; results: where its output lies."""

    source: Tensor
    replay: Callable[[], None]
    results: Tensors


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way: pinned host memory. `results` are not to be read before `landed`."""

    sources: Tensor
    results: Tensors
    landed: Moment


@dataclass(slots=True)
class Pipeline:
    """Runs `compute` on `device`: uint8 `[N, h, w, 3]` and `reduce` to tensors of N along axis 0.

    For one thread. Captured work reads the same memory each time it is done again, so `compute` may
    depend on nothing but its arguments, and asks the device nothing.
    """

    compute: Compute
    device: torch.device
    seam: Seam
    graphs: OrderedDict[Key, Graph] = field(default_factory=OrderedDict)
    seen: OrderedDict[Key, None] = field(default_factory=OrderedDict)

    @torch.inference_mode()
    def launch(self, windows: Sequence[Window], reduce: int) -> Flight:
        """Set a batch going behind those under way.

        Raises:
            torch.OutOfMemoryError: see `make_room`.
        """
        seam = self.seam
        sources = seam.make_pinned((len(windows), *windows[0].shape), torch.uint8)
        np.stack(windows, out=sources.numpy())
        with seam.on("upload"):
            levels = sources.to(self.device, non_blocking=True)
        seam.wait("compute", seam.mark("upload"))
        seam.keep(levels, "compute")
        with seam.on("compute"):
            computed = self._run(levels, reduce)
        seam.wait("download", seam.mark("compute"))
        results = tuple(self._download(each) for each in computed)
        return Flight(sources, results, seam.mark("download"))

    def make_room(self) -> None:
        """Let go of all graphs and of the memory they hold, so that a smaller batch finds room."""
        self.graphs.clear()
        self.seam.release()

    def _download(self, computed: Tensor) -> Tensor:
        self.seam.keep(computed, "download")
        result = self.seam.make_pinned(tuple(computed.shape), computed.dtype)
        with self.seam.on("download"):
            return result.copy_(computed, non_blocking=True)

    def _run(self, levels: Tensor, reduce: int) -> Tensors:
        key = (tuple(levels.shape), reduce)
        graph = self.graphs.get(key)
        if graph is None and key not in self.seen:
            _remember(self.seen, key, None, MAX_SEEN)
            return self.compute(levels, reduce)
        if graph is None:
            graph = self._capture(levels, reduce)
        _remember(self.graphs, key, graph, MAX_GRAPHS)
        graph.source.copy_(levels)
        graph.replay()
        # Copies, for the next graph overwrites these while they are on their way down.
        return tuple(result.clone() for result in graph.results)

    def _capture(self, levels: Tensor, reduce: int) -> Graph:
        source = levels.clone()
        replay, results = self.seam.capture(lambda: self.compute(source, reduce))
        return Graph(source, replay, results)


def _remember(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Keep the ones that came last."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
