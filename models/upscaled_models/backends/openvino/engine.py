"""The engine that runs networks with OpenVINO on CPUs, in float32, bfloat16 or 8 bits."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import (
    EngineInfo,
    LoadedModel,
    Started,
    Window,
    is_deep,
    round_up,
)
from upscaled_models.backends.openvino.graph import build_parts, finish_window
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.runtime import (
    Graph,
    OpenVino,
    choose_tail_precision,
    compile_graph,
)
from upscaled_models.backends.torch.engine import TorchEngine
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite
from upscaled_models.networks.strips import plan_strips
from upscaled_models.networks.table import NETWORKS
from upscaled_models.registry import ModelSpec

OpenVinoPrecision = Literal["float32", "bfloat16", "int8"]

SHAPE_STEP_PX: Final = 32
"""Each new shape is compiled: 0.05 to 0.1 s for small networks, 1 s and more for RRDB."""

_HINTS: Final[dict[OpenVinoPrecision, str]] = {
    "float32": "f32",
    "bfloat16": "bf16",
    # Layers that are left in floats stay in float32 in the trunk: they cost little there.
    "int8": "f32",
}

ANY_PX: Final = -1
"""Stands for a window's height and width: the graph is compiled once for all of them."""


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """A network as an OpenVINO graph (see `backends.base.Engine`).

    exact: the same network in torch, for windows that are requested in float32, or whose results
    are not finite (refused instead if it `is_strict`), or, unless it `is_strict`, for whose shape
    alone no graph is worth compiling. Graphs have fixed shapes, but for RRDB's trunk in 8 bits (see
    `_make_graphs`). concurrent_graphs: the same graphs on fewer cores, which compute small windows
    while `graphs` are at work.
    """

    info: EngineInfo
    exact: TorchEngine
    graphs: "ReadyGraphs"
    concurrent_graphs: "ReadyGraphs"
    is_strict: bool = False

    @property
    def concurrent(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, graphs=self.concurrent_graphs)

    def strict(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> "OpenVinoEngine":
        """Return the same engine; of the shapes it was tried in, only its windows' are kept."""
        return dataclasses.replace(
            self,
            info=dataclasses.replace(self.info, window_px=window_px, batch=batch, proof=proof),
            is_strict=False,
            graphs=self.graphs.of_side(window_px),
        )

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        pixels = np.stack(windows)
        if is_exact or is_deep(pixels) or not self._is_for_graphs(pixels.shape):
            return self.exact.start(windows, reduce, is_exact=True)
        try:
            # A batch waiting behind this one would make nothing faster on a processor, and a small
            # image that comes meanwhile would have to wait for both. So it is computed here, by the
            # calling thread, as the first of its threads: its priority is the caller's to choose.
            levels = self.graphs.compute(pixels)
        except (MemoryError, RuntimeError) as error:
            # OpenVINO reports short memory by RuntimeError alone. Smaller windows help where memory
            # is short; after any other failure the smallest fails as well.
            raise EngineOutOfMemory(f"{pixels.shape} in OpenVINO: {error}") from error
        return _Running(self, pixels.view(np.uint8), levels, reduce)

    def _is_for_graphs(self, shape: tuple[int, ...]) -> bool:
        """Return whether graphs compute a shape: always where the engine is tried."""
        _, height, width, _ = shape
        step_px = self.info.shape_step_px
        is_tile = height % step_px == 0 and width % step_px == 0
        is_large = height * width > NETWORKS[self.info.spec.family].max_unready_px
        return self.is_strict or is_tile or is_large or self.graphs.has(shape)


@dataclass(slots=True)
class _Running:
    """A batch whose graph was computed (see `backends.base.Started`)."""

    engine: OpenVinoEngine
    pixels: NDArray[np.uint8]
    levels: "Levels"
    reduce: int
    is_done: bool = True

    def finish(self) -> list[Window]:
        results = self.levels.values
        return [self._finish_one(at, results[at]) for at in range(len(self.pixels))]

    def _finish_one(self, at: int, result: NDArray[np.float32]) -> Window:
        """Convert a window's result; the sum shows whether a single value is not finite."""
        window = self.pixels[at]
        if not np.isfinite(result.sum()):
            if self.engine.is_strict:
                raise ResultNotFinite(f"{self.engine.info.label}: result is not finite")
            (exact,) = self.engine.exact.start([window], self.reduce, is_exact=True).finish()
            return exact
        return finish_window(result, window, self.engine.info.spec.family, self.reduce)


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
    compiled once for windows of every height and width.
    """

    graph: Graph
    hint: str
    threads: int
    max_shapes: int
    tail: "ReadyGraphs | None" = None
    takes_any_size: bool = False
    kept: OrderedDict[tuple[int, ...], OpenVino] = field(default_factory=OrderedDict)
    copying: threading.Lock = field(default_factory=threading.Lock)

    def on_fewer_threads(self) -> "ReadyGraphs":
        """Return the same graphs on half of the threads, for a second thread that computes."""
        fewer = max(1, self.threads // 2)
        tail = self.tail.on_fewer_threads() if self.tail else None
        return dataclasses.replace(self, threads=fewer, tail=tail, kept=OrderedDict())

    def of_side(self, side_px: int) -> "ReadyGraphs":
        """Return the same graphs, with compiled shapes kept for squares of that side only."""
        sides = {(side_px,) * 2, (ANY_PX,) * 2}
        kept = {shape: each for shape, each in self.kept.items() if shape[1:3] in sides}
        return dataclasses.replace(self, kept=OrderedDict(kept))

    def has(self, shape: tuple[int, ...]) -> bool:
        return self._compiled_shape(shape) in self.kept

    def compute(self, pixels: NDArray[np.generic]) -> Levels:
        """Compute the network's result for a batch, uint8 `[N, h, w, 3]`."""
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

    def _compiled_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that a graph for windows of `shape` is compiled for, and kept by."""
        if not self.takes_any_size:
            return shape
        return (shape[0], ANY_PX, ANY_PX, *shape[3:])


def open_openvino(
    model: LoadedModel, exact: TorchEngine, layers: Layers, precision: OpenVinoPrecision
) -> OpenVinoEngine:
    """Open a model with OpenVINO on the CPU; ImportError where that is not installed.

    Args:
        exact: the same model in torch and float32, on the same CPU threads.
        layers: the model's weights (`layers.layers_of`), quantised ones for int8.
    """
    graphs = _make_graphs(model.spec, layers, precision, exact.device.threads)
    info = EngineInfo(
        spec=model.spec,
        label=f"openvino {precision}",
        window_px=model.window_px,
        shape_step_px=round_up(SHAPE_STEP_PX, model.spec.multiple_px),
    )
    return OpenVinoEngine(info, exact, graphs, graphs.on_fewer_threads())


def _make_graphs(
    spec: ModelSpec, layers: Layers, precision: OpenVinoPrecision, threads: int
) -> ReadyGraphs:
    """Make one graph of a network, or a trunk and a tail (`networks.strips` says why).

    A trunk in 8 bits is compiled once for all sizes: x4plus takes 3 s for that, a new size 0.5 s,
    a window 2 % more. In floats that took twice as long.
    """
    most, hint = NETWORKS[spec.family].max_ready_shapes, _HINTS[precision]
    first, *rest = build_parts(spec.family, spec.shape, layers)
    if not rest:
        return ReadyGraphs(first, hint, threads, most)
    is_8_bits = precision == "int8"
    tail = ReadyGraphs(rest[0], choose_tail_precision() if is_8_bits else hint, threads, most)
    return ReadyGraphs(first, hint, threads, most, tail, takes_any_size=is_8_bits)
