"""The engine that runs networks with OpenVINO, on CPUs: in float32, bfloat16 or 8 bits."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.graphs.build import build_graph
from models.graphs.finishing import finish_window
from models.graphs.layers import Layers
from models.graphs.runtime import Graph, OpenVino, compile_graph
from models.registry import Family, Shape
from service.engine.engine import EngineOutOfMemory, Started, Window, round_up
from service.engine.torch_engine import TorchEngine
from service.errors import InternalError
from service.image.depth import is_deep

OpenVinoPrecision = Literal["float32", "bfloat16", "int8"]

SHAPE_STEP_PX: Final = 32
"""Each new shape is compiled: 0.05 to 0.1 s for small networks, 1 s and more for RRDB."""

MAX_READY_SHAPES: Final = 8
"""Shapes kept ready. Each holds 5 to 20 MB, RRDB's 100 MB and more."""

MAX_UNREADY_PX: Final[dict[Family, int]] = {
    "plain": 0,
    "srvgg": 0,
    "rrdb": 96 * 96,
    "span": 0,
    "realplksr": 96 * 96,
}
"""Windows of an odd shape up to this area are not worth a compilation: they take float32, but
where an engine is tried."""

_HINTS: Final[dict[OpenVinoPrecision, str]] = {
    "float32": "f32",
    "bfloat16": "bf16",
    # Layers that are left in floats stay in float32: between 8-bit ones they cost little.
    "int8": "f32",
}


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """A network as an OpenVINO graph (see `service.engine.engine.Engine`).

    `exact` is the same network in torch, for windows that are asked for in float32, or whose
    results are not finite (refused instead if it `is_strict`), or, unless it `is_strict`, for whose
    shape alone no graph is worth compiling. Graphs have fixed shapes: with one of any shape, memory
    grew by 0.8 MB for every shape ever seen, and RRDB took twice as long. `graphs_aside` are the
    same on fewer cores: those are lent to small windows while `graphs` compute.
    """

    exact: TorchEngine
    family: Family
    precision: OpenVinoPrecision
    window_px: int
    shape_step_px: int
    batch: int
    graphs: "ReadyGraphs"
    graphs_aside: "ReadyGraphs"
    is_strict: bool = False
    proof: str = ""

    @property
    def model(self) -> str:
        return self.exact.model

    @property
    def native_scale(self) -> int:
        return self.exact.native_scale

    @property
    def halo_px(self) -> int:
        return self.exact.halo_px

    @property
    def multiple_px(self) -> int:
        return self.exact.multiple_px

    @property
    def small_batch(self) -> int:
        """A processor has no use for more: one window keeps it busy."""
        return self.batch

    @property
    def label(self) -> str:
        return f"openvino {self.precision}"

    @property
    def aside(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, graphs=self.graphs_aside)

    def strict(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> "OpenVinoEngine":
        """The same; of the shapes it was tried in, only its windows' stay compiled."""
        return dataclasses.replace(
            self,
            window_px=window_px,
            batch=batch,
            proof=proof,
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
            request = self.graphs.request(pixels.shape)
            # A batch waiting behind this one would make nothing faster on a processor, and a small
            # image that comes meanwhile would have to wait for both. So it is computed here, by the
            # calling thread, as the first of its threads: its priority is the caller's to choose.
            request.infer([pixels], share_inputs=True)
        except (MemoryError, RuntimeError) as error:
            raise _out_of_memory(error, pixels.shape) from error
        return _Running(self, pixels.view(np.uint8), request, reduce)

    def run(self, windows: Iterable[Window], reduce: int = 1) -> Iterator[Window]:
        for window in windows:
            yield from self.start([window], reduce).finish()

    def _is_for_graphs(self, shape: tuple[int, ...]) -> bool:
        """Always, where the engine is tried: float32 instead would prove and time nothing."""
        if self.is_strict:
            return True
        _, height, width, _ = shape
        is_tile = height % self.shape_step_px == 0 and width % self.shape_step_px == 0
        return is_tile or height * width > MAX_UNREADY_PX[self.family] or self.graphs.has(shape)


@dataclass(slots=True)
class _Running:
    """A batch whose graph was computed (see `service.engine.engine.Started`)."""

    engine: OpenVinoEngine
    pixels: NDArray[np.uint8]
    request: OpenVino
    reduce: int
    is_done: bool = True

    def finish(self) -> list[Window]:
        results = self.request.get_output_tensor(0).data
        return [self._finish_one(at, results[at]) for at in range(len(self.pixels))]

    def _finish_one(self, at: int, result: NDArray[np.float32]) -> Window:
        """The sum is not finite if a single value is not."""
        window = self.pixels[at]
        if not np.isfinite(result.sum()):
            if self.engine.is_strict:
                raise InternalError(detail=f"{self.engine.label}: result is not finite")
            (exact,) = self.engine.exact.start([window], self.reduce, is_exact=True).finish()
            return exact
        return finish_window(result, window, self.engine.family, self.reduce)


@dataclass(slots=True)
class ReadyGraphs:
    """A graph compiled for shapes `(N, h, w, 3)`, the last `MAX_READY_SHAPES` of which are kept.

    hint: "f32" or "bf16", what is computed in beside 8 bits. threads: of the CPU. copying: held
    while the graph is copied, which others may share.
    """

    graph: Graph
    hint: str
    threads: int
    kept: OrderedDict[tuple[int, ...], OpenVino] = field(default_factory=OrderedDict)
    copying: threading.Lock = field(default_factory=threading.Lock)

    def on_fewer_threads(self) -> "ReadyGraphs":
        """The same graph on half of the threads, for one thread beside that of these."""
        fewer = max(1, self.threads // 2)
        return dataclasses.replace(self, threads=fewer, kept=OrderedDict())

    def of_side(self, side_px: int) -> "ReadyGraphs":
        """The same graph, ready for squares of that side alone, if it is now."""
        kept = {shape: each for shape, each in self.kept.items() if shape[1:3] == (side_px,) * 2}
        return dataclasses.replace(self, kept=OrderedDict(kept))

    def has(self, shape: tuple[int, ...]) -> bool:
        return shape in self.kept

    def request(self, shape: tuple[int, ...]) -> OpenVino:
        """A new inference request, compiled for `shape` where that is not kept."""
        compiled = self.kept.pop(shape, None)
        if compiled is None:
            with self.copying:
                graph = self.graph.clone()
            graph.reshape([int(side) for side in shape])
            compiled = compile_graph(graph, precision=self.hint, threads=self.threads)
        self.kept[shape] = compiled
        if len(self.kept) > MAX_READY_SHAPES:
            self.kept.popitem(last=False)
        return compiled.create_infer_request()


def build_openvino_engine(
    exact: TorchEngine,
    family: Family,
    shape: Shape,
    layers: Layers,
    precision: OpenVinoPrecision,
    *,
    window_px: int,
    batch: int = 1,
) -> OpenVinoEngine:
    """An engine beside a torch engine of the same network on the CPU, whose sizes it takes over.

    Args:
        layers: the network's weights (`models.graphs.layers.layers_of`), quantised ones for int8.
        window_px: the longest window side.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    graphs = ReadyGraphs(
        build_graph(family, shape, layers), _HINTS[precision], exact.device.threads
    )
    return OpenVinoEngine(
        exact=exact,
        family=family,
        precision=precision,
        window_px=window_px,
        shape_step_px=round_up(SHAPE_STEP_PX, exact.multiple_px),
        batch=batch,
        graphs=graphs,
        graphs_aside=graphs.on_fewer_threads(),
    )


def _out_of_memory(error: Exception, shape: tuple[int, ...]) -> EngineOutOfMemory:
    """OpenVINO says by RuntimeError that memory is short, and by nothing more exact: smaller
    windows are the right answer to that, and for all else the smallest one fails as well.
    """
    return EngineOutOfMemory(f"{shape} in OpenVINO: {error}")
