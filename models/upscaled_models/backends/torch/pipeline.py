"""Batches through an NVIDIA GPU: upload, network, download, each in a CUDA stream of its own.

A shape that comes a second time is captured as a CUDA graph: launching a network's kernels one by
one takes longer than small windows compute.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from upscaled_models.backends.base import Window

MAX_GRAPHS: Final = 8
"""Graphs kept; each holds its input, and all share the memory between it and the result."""

MAX_SEEN: Final = 256
"""Shapes remembered that came once and are not captured yet."""

Tensors = tuple[Tensor, ...]
StreamName = Literal["upload", "compute", "download"]
Key = tuple[tuple[int, ...], int]
Value = TypeVar("Value")
Compute = Callable[[Tensor, int], Tensors]


class CudaStreams:
    """The streams, events, pinned memory and CUDA graphs of one NVIDIA GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device: Final = device
        self._streams: Final = {
            name: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for name in ("upload", "compute", "download")
        }
        self._pool: Final = torch.cuda.graph_pool_handle()

    def make_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate host memory that the GPU copies from and to by itself."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def on(self, stream: StreamName) -> AbstractContextManager[object]:
        """Run the work of a block in that stream."""
        return torch.cuda.stream(self._streams[stream])

    def mark(self, stream: StreamName) -> torch.cuda.Event:
        """Record an event behind the work that the stream has so far."""
        return cast(torch.cuda.Event, self._streams[stream].record_event())

    def wait(self, stream: StreamName, event: torch.cuda.Event) -> None:
        """Let later work of the stream begin after the event; does not block the caller."""
        self._streams[stream].wait_event(event)

    def keep(self, tensor: Tensor, stream: StreamName) -> None:
        """Keep the memory of a tensor of another stream until this stream's work is done."""
        tensor.record_stream(self._streams[stream])

    def capture(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        """Capture `work` of the compute stream; return its replay and the buffer of its results.

        All graphs share one pool: they run one after the other in one stream, and the results of
        each are copied out in that stream before the next. Warm-up runs in the same stream, so
        that libraries choose their kernels before anything is recorded.
        """
        with self.on("compute"):
            work()
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._streams["compute"],
                capture_error_mode="thread_local",
            ),
        ):
            results = work()
        return graph.replay, results

    def release(self) -> None:
        """Give back memory that no tensor uses."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured CUDA graph. source: the buffer of its input; results: that of its output."""

    source: Tensor
    replay: Callable[[], None]
    results: Tensors


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way, in pinned host memory; read `results` only after `landed`."""

    sources: Tensor
    results: Tensors
    landed: torch.cuda.Event


@dataclass(slots=True)
class Pipeline:
    """Runs `compute` on `device`: uint8 `[N, h, w, 3]` and `reduce` to tensors of N along axis 0.

    For one thread. As it is captured, `compute` may depend on nothing but its arguments, and must
    not synchronise with the device.
    """

    compute: Compute
    device: torch.device
    streams: CudaStreams
    graphs: OrderedDict[Key, Graph] = field(default_factory=OrderedDict)
    seen: OrderedDict[Key, None] = field(default_factory=OrderedDict)

    @torch.inference_mode()
    def launch(self, windows: Sequence[Window], reduce: int) -> Flight:
        """Queue a batch behind those under way."""
        streams = self.streams
        sources = streams.make_pinned((len(windows), *windows[0].shape), torch.uint8)
        np.stack(windows, out=sources.numpy())
        with streams.on("upload"):
            levels = sources.to(self.device, non_blocking=True)
        streams.wait("compute", streams.mark("upload"))
        streams.keep(levels, "compute")
        with streams.on("compute"):
            computed = self._run(levels, reduce)
        streams.wait("download", streams.mark("compute"))
        results = tuple(self._download(each) for each in computed)
        return Flight(sources, results, streams.mark("download"))

    def make_room(self) -> None:
        """Drop all graphs and the memory they hold, so that a smaller batch fits."""
        self.graphs.clear()
        self.streams.release()

    def _download(self, computed: Tensor) -> Tensor:
        self.streams.keep(computed, "download")
        result = self.streams.make_pinned(tuple(computed.shape), computed.dtype)
        with self.streams.on("download"):
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
        replay, results = self.streams.capture(lambda: self.compute(source, reduce))
        return Graph(source, replay, results)


def _remember(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Keep the `most` entries that were used last."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
