"""Windows of 16 bits a channel, through every kind of engine."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.backends.openvino.test_engine import engine_of as openvino_engine_of
from tests.models.backends.torch.test_engine import CPU, CPU_HALF, Nearest, Overflows
from tests.models.backends.torch.test_engine import engine_of as torch_engine_of
from tests.models.backends.torch.test_pipeline import engine_of as pipelined_engine_of
from tests.models.backends.torch.test_pipeline import needs_cuda
from tests.models.specs import loaded
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, open_torch
from upscaled_models.errors import ResultNotFinite
from upscaled_models.families.plain import plain_shape
from upscaled_models.weights import build_network

CUDA_HALF = Device(torch.device("cuda"), torch.float16, threads=1)
EVERY_LEVEL = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)


def deep_noise(height: int = 24, width: int = 32, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3), np.uint16)


@pytest.mark.parametrize("device", [CPU, CPU_HALF, pytest.param(CUDA_HALF, marks=needs_cuda)])
def test_every_level_comes_back_as_itself(device: Device) -> None:
    engine = torch_engine_of(Nearest(1), device, native_scale=1)

    (result,) = engine.start([EVERY_LEVEL]).finish()

    assert result.dtype == np.uint16
    assert result.flags.c_contiguous
    assert np.array_equal(result, EVERY_LEVEL)


def test_reducing_averages_before_it_rounds() -> None:
    window = deep_noise()

    (result,) = torch_engine_of(Nearest(1), native_scale=1).start([window], 2).finish()

    squares = window.reshape(12, 2, 16, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(result - squares).max() <= 0.5 + 1e-2


def test_results_are_in_order() -> None:
    windows = [deep_noise(seed=seed) for seed in range(3)]

    results = torch_engine_of(Nearest()).start(windows).finish()

    for window, result in zip(windows, results, strict=True):
        assert np.array_equal(result, window.repeat(2, axis=0).repeat(2, axis=1))


def test_a_short_type_is_never_used() -> None:
    network = Overflows()  # in any type but float32

    (result,) = torch_engine_of(network, CPU_HALF, native_scale=1).start([deep_noise()]).finish()

    assert network.runs == [torch.float32]
    assert np.array_equal(result, deep_noise())


def test_what_is_not_finite_is_an_error_never_a_picture() -> None:
    with pytest.raises(ResultNotFinite):
        torch_engine_of(Overflows(always=True), native_scale=1).start([deep_noise()])


def plain_engine(device: Device) -> TorchEngine:
    torch.manual_seed(7)
    network = build_network("plain", plain_shape(scale=4, layers=2, features=8))
    return open_torch(loaded(network, native_scale=4), device)


def test_a_networks_result_is_what_float64_makes_of_it_to_the_level() -> None:
    window = deep_noise()
    engine = plain_engine(CPU_HALF)

    (result,) = engine.start([window]).finish()

    pixels = torch.from_numpy(window.astype(np.float64) / 65535).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = plain_engine(CPU).exact_network.double()(pixels).clamp(0, 1)
    levels = expected[0].permute(1, 2, 0).numpy() * 65535
    assert np.abs(result - levels).max() <= 0.5 + 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_leaves_them_to_torch_in_float32(precision: str) -> None:
    engine = openvino_engine_of(precision=precision)  # type: ignore[arg-type]
    windows = [deep_noise(seed=seed) for seed in range(2)]

    results = engine.start(windows, 2).finish()

    for result, expected in zip(results, engine.exact.start(windows, 2).finish(), strict=True):
        assert result.dtype == np.uint16
        assert np.array_equal(result, expected)


def test_a_gpus_pipeline_of_bytes_is_passed_by() -> None:
    engine = pipelined_engine_of(Nearest())

    (result,) = engine.start([deep_noise()]).finish()

    assert result.dtype == np.uint16
    assert np.array_equal(result, deep_noise().repeat(2, axis=0).repeat(2, axis=1))


def test_flat_colours_stay_what_they_are() -> None:
    engine = plain_engine(CPU)
    for level in range(0, 65536, 4369 // 3):
        flat = np.full((16, 16, 3), level, np.uint16)
        assert (engine.start([flat]).finish()[0] == level).all()
