"""Batches through a GPU, run where there may be none: everything but the streams."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.models.specs import loaded
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, make_pipeline, open_torch
from upscaled_models.backends.torch.pipeline import (
    MAX_GRAPHS,
    CudaStreams,
    Pipeline,
    StreamName,
    Tensors,
)
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = [pytest.param("cpu", id="inline"), pytest.param("cuda", id="cuda", marks=needs_cuda)]


class Past:
    """An event that is over."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Nothing is left to wait for."""


class InlineStreams(CudaStreams):
    """No streams: work is done, on any device, when its call returns. Counts what is captured."""

    def __init__(self) -> None:
        self.captures = 0
        self.releases = 0

    def make_pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def on(self, stream: StreamName) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self, stream: StreamName) -> torch.cuda.Event:
        return cast(torch.cuda.Event, Past())

    def wait(self, stream: StreamName, event: torch.cuda.Event) -> None:
        event.synchronize()

    def keep(self, tensor: Tensor, stream: StreamName) -> None:
        """No memory is reused early."""

    def capture(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        self.captures += 1
        results = work()

        def replay() -> None:
            for result, again in zip(results, work(), strict=True):
                result.copy_(again)

        return replay, results

    def release(self) -> None:
        self.releases += 1


def window(height: int = 8, width: int = 6, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def engine_of(
    network: nn.Module, streams: CudaStreams | None = None, where: str = "cpu"
) -> TorchEngine:
    """An engine as CUDA's, with a pipeline, on the CPU or on CUDA."""
    device = Device(torch.device(where), torch.float32, threads=1)
    engine = open_torch(loaded(network, native_scale=1), device)
    if where == "cuda":
        return engine
    pipeline = make_pipeline(engine.network, device, streams or InlineStreams())
    return replace(engine, pipeline=pipeline)


def convolution() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


@pytest.mark.parametrize("where", DEVICES)
def test_first_captured_and_replayed_batches_are_those_of_an_engine_without_a_pipeline(
    where: str,
) -> None:
    engine = engine_of(convolution(), where=where)
    plain = replace(engine, pipeline=None)

    for seed in range(5):
        windows = [window(seed=2 * seed), window(seed=2 * seed + 1)]
        for reduce in (1, 2):
            results = engine.start(windows, reduce).finish()
            expected = plain.start(windows, reduce).finish()
            for result, right in zip(results, expected, strict=True):
                assert np.abs(result.astype(int) - right).max() <= (where == "cuda")


@pytest.mark.parametrize("where", DEVICES)
def test_batches_that_are_finished_late_and_in_any_order_keep_their_own_results(where: str) -> None:
    engine = engine_of(nn.Identity(), where=where)
    windows = [window(8 + seed % 2, 6, seed) for seed in range(8)]

    started = [engine.start([each]) for each in windows]

    for at in (7, 0, 3, 1, 6, 2, 5, 4):
        (result,) = started[at].finish()
        assert np.array_equal(result, windows[at])
        assert started[at].is_done


def test_sources_may_be_overwritten_once_a_batch_is_started() -> None:
    engine = engine_of(nn.Identity())
    source = window()
    before = source.copy()

    started = engine.start([source])
    source[:] = 0

    assert np.array_equal(started.finish()[0], before)


def test_a_shape_is_captured_at_its_second_use_and_only_once() -> None:
    streams = InlineStreams()
    engine = engine_of(nn.Identity(), streams)

    counts = []
    for _ in range(4):
        engine.start([window()]).finish()
        counts.append(streams.captures)
    engine.start([window(), window()]).finish()

    assert counts == [0, 1, 1, 1]
    assert streams.captures == 1


def test_only_the_graphs_that_were_used_last_are_kept() -> None:
    streams = InlineStreams()
    engine = engine_of(nn.Identity(), streams)
    sides = range(1, MAX_GRAPHS + 2)
    for side in sides:
        for _ in range(2):
            engine.start([window(side, side)]).finish()
    assert engine.pipeline is not None
    assert len(engine.pipeline.graphs) == MAX_GRAPHS

    engine.start([window(sides[-1], sides[-1])]).finish()
    assert streams.captures == len(sides)
    engine.start([window(1, 1)]).finish()
    assert streams.captures == len(sides) + 1


class Full(nn.Module):
    """Has no room for more than one window."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise torch.OutOfMemoryError("full")
        return x


def test_out_of_memory_frees_the_graphs_and_a_smaller_batch_then_works() -> None:
    streams = InlineStreams()
    engine = engine_of(Full(), streams)
    for _ in range(2):
        engine.start([window()]).finish()
    assert isinstance(engine.pipeline, Pipeline)
    assert len(engine.pipeline.graphs) == 1

    with pytest.raises(EngineOutOfMemory):
        engine.start([window(), window()])

    assert (len(engine.pipeline.graphs), streams.releases) == (0, 1)
    assert np.array_equal(engine.start([window()]).finish()[0], window())


class Overflows(nn.Module):
    """Not finite for a window whose first level is 255."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x[:, :1, :1, :1] == 1, x * torch.inf, x)


def test_windows_that_are_not_finite_are_computed_again_or_refused() -> None:
    good, bad = window(seed=1), window(seed=2)
    good[0, 0], bad[0, 0] = 0, 255
    engine = replace(engine_of(Overflows()), exact_network=nn.Identity())

    results = engine.start([good, bad]).finish()

    assert np.array_equal(results[0], good)
    assert np.array_equal(results[1], bad)
    with pytest.raises(ResultNotFinite):
        engine.strict().start([good, bad]).finish()


@needs_cuda
def test_a_cuda_device_has_streams() -> None:
    engine = engine_of(convolution(), where="cuda")

    assert engine.pipeline is not None
    assert isinstance(engine.pipeline.streams, CudaStreams)


def test_16_bits_bypass_the_pipeline_of_bytes() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (24, 32, 3), np.uint16)

    (result,) = engine_of(nn.Identity()).start([deep]).finish()

    assert result.dtype == np.uint16
    assert np.array_equal(result, deep)
