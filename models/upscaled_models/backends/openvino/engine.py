"""The engine that runs networks with OpenVINO on CPUs, in float32, bfloat16 or 8 bits."""

import dataclasses
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
from upscaled_models.backends.openvino.columns import BandGraphs, OpenVinoColumn
from upscaled_models.backends.openvino.graph import (
    build_parts,
    build_planar_graph,
    finish_window,
)
from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.ready_graphs import Levels, ReadyGraphs
from upscaled_models.backends.openvino.runtime import choose_tail_precision
from upscaled_models.backends.torch.engine import TorchEngine
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite
from upscaled_models.networks.table import NETWORKS
from upscaled_models.registry import ModelSpec

OpenVinoPrecision = Literal["float32", "bfloat16", "int8"]

SHAPE_STEP_PX: Final = 32
"""Keeps shapes few: compiling one takes 0.05 to 0.1 s for small networks, 1 s or more for RRDB."""

_HINTS: Final[dict[OpenVinoPrecision, str]] = {
    "float32": "f32",
    "bfloat16": "bf16",
    # Layers that are left in floats stay in float32 in the trunk: they cost little there.
    "int8": "f32",
}


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """A network as an OpenVINO graph (see `backends.base.Engine`).

    exact: the same network in torch, for windows that are requested in float32, or whose results
    are not finite (refused instead if it `is_strict`), or, unless it `is_strict`, for whose shape
    alone no graph is worth compiling. Graphs have fixed shapes, but for RRDB's trunk in 8 bits and
    for shapes that are new to a small network (see `_make_graphs`). concurrent_graphs: the same
    graphs on fewer cores, which compute small windows while `graphs` are at work.
    """

    info: EngineInfo
    exact: TorchEngine
    graphs: ReadyGraphs
    concurrent_graphs: ReadyGraphs
    is_strict: bool = False

    @property
    def concurrent(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, graphs=self.concurrent_graphs)

    def strict(self) -> "OpenVinoEngine":
        return dataclasses.replace(self, is_strict=True)

    def sized(self, *, window_px: int, batch: int, proof: str) -> "OpenVinoEngine":
        """Return the same engine, with graphs for the shape of its windows alone."""
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
            levels = self.graphs.compute(pixels, is_tried=self.is_strict)
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


@dataclass(frozen=True, slots=True)
class OpenVinoBandEngine(OpenVinoEngine):
    """An engine of a chain of convolutions, with graphs for bands of tall windows."""

    bands: BandGraphs = field(kw_only=True)

    def prefers_bands(self, px: int) -> bool:
        return self.bands.are_worth_making(px)

    def open_column(self) -> OpenVinoColumn:
        spec = self.info.spec
        return OpenVinoColumn(self.bands, self.exact, spec.family, spec.native_scale)


@dataclass(slots=True)
class _Running:
    """A batch whose graph was computed (see `backends.base.Started`)."""

    engine: OpenVinoEngine
    pixels: NDArray[np.uint8]
    levels: Levels
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
        family, is_planar = self.engine.info.spec.family, self.levels.is_planar
        return finish_window(result, window, family, self.reduce, is_planar=is_planar)


def open_openvino(
    model: LoadedModel, exact: TorchEngine, layers: Layers, precision: OpenVinoPrecision
) -> OpenVinoEngine:
    """Open a model with OpenVINO on the CPU; ImportError where that is not installed.

    Args:
        exact: the same model in torch and float32, on the same CPU threads.
        layers: the model's weights (`layers.layers_of`), quantised ones for int8.
    """
    spec, threads = model.spec, exact.device.threads
    graphs = _make_graphs(spec, layers, precision, threads)
    build_chain = NETWORKS[spec.family].build_chain
    info = EngineInfo(
        spec=spec,
        label=f"openvino {precision}",
        window_px=model.window_px,
        shape_step_px=round_up(SHAPE_STEP_PX, spec.multiple_px),
        takes_new_shapes=graphs.any_size is not None,
        computes_bands=build_chain is not None,
    )
    concurrent = graphs.on_fewer_threads()
    if build_chain is None:
        return OpenVinoEngine(info, exact, graphs, concurrent)
    bands = BandGraphs(build_chain(spec.shape, layers), _HINTS[precision], threads)
    return OpenVinoBandEngine(info, exact, graphs, concurrent, bands=bands)


def _make_graphs(
    spec: ModelSpec, layers: Layers, precision: OpenVinoPrecision, threads: int
) -> ReadyGraphs:
    """Make one graph of a network, or a trunk and a tail (`networks.strips` says why).

    In 8 bits a network of one graph has a second, compiled for any size, for shapes that are new.
    A trunk in 8 bits is compiled once for all sizes: x4plus takes 3 s for that, a new size 0.5 s,
    a window 2 % more. In floats that took twice as long.
    """
    most, hint = NETWORKS[spec.family].max_ready_shapes, _HINTS[precision]
    first, *rest = build_parts(spec.family, spec.shape, layers)
    is_8_bits = precision == "int8"
    if not rest:
        ready = ReadyGraphs(first, hint, threads, most)
        if not is_8_bits:
            return ready
        return ready.with_any_size(build_planar_graph(spec.family, spec.shape, layers))
    tail = ReadyGraphs(rest[0], choose_tail_precision() if is_8_bits else hint, threads, most)
    return ReadyGraphs(first, hint, threads, most, tail, is_any_size=is_8_bits)
