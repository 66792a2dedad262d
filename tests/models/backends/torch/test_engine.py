import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.models.specs import loaded
from upscaled_models.backends.base import Window
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import TorchEngine, open_torch, to_input, to_windows
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite
from upscaled_models.families.plain import plain_shape
from upscaled_models.weights import build_network

CPU = Device(torch.device("cpu"), torch.float32, threads=1)
CPU_HALF = Device(torch.device("cpu"), torch.bfloat16, threads=1)


class Nearest(nn.Module):
    """Repeats pixels `scale` times, then applies `after`."""

    def __init__(self, scale: int = 2, after: nn.Module | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        large = x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        result: Tensor = self.after(large)
        return result


class Brighten(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


class Overflows(nn.Module):
    """Not finite in any type shorter than float32, and there too if `always`."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always
        self.weight = nn.Parameter(torch.ones(1))
        self.runs: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append(self.weight.dtype)
        if self.always or self.weight.dtype != torch.float32:
            x = x.clone()
            x[0, 0, 0, 0] = float("nan")
        return x


def engine_of(network: nn.Module, device: Device = CPU, native_scale: int = 2) -> TorchEngine:
    return open_torch(loaded(network, native_scale=native_scale), device)


def noise(height: int = 11, width: int = 7, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def deep_noise(height: int = 24, width: int = 32, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3), np.uint16)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA_HALF = Device(torch.device("cuda"), torch.float16, threads=1)
DEVICES = [
    pytest.param(CPU, id="float32"),
    pytest.param(CPU_HALF, id="bfloat16"),
    pytest.param(CUDA_HALF, id="cuda", marks=needs_cuda),
]
NOISES = [pytest.param(noise, id="8 bits"), pytest.param(deep_noise, id="16 bits")]
Noise = Callable[..., Window]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "side_px"), [(np.uint8, 16), (np.uint16, 256)])
def test_every_level_is_returned_unchanged(
    dtype: type[np.uint8 | np.uint16], side_px: int, device: Device
) -> None:
    ramp = np.arange(side_px**2).reshape(side_px, side_px, 1).repeat(3, 2)
    levels = cast(Window, ramp.astype(dtype))

    (result,) = engine_of(Nearest(1), device, native_scale=1).start([levels]).finish()

    assert result.dtype == dtype
    assert result.flags.c_contiguous
    assert np.array_equal(result, levels)


def test_a_cpu_computes_small_windows_in_a_second_thread_and_a_gpu_does_not() -> None:
    engine = engine_of(Nearest())
    assert engine.concurrent is engine
    gpu = replace(CPU, torch_device=torch.device("cuda"))
    assert replace(engine, device=gpu).concurrent is None


@pytest.mark.parametrize("draw", NOISES)
def test_results_are_in_order_in_rgb_and_contiguous(draw: Noise) -> None:
    windows = [draw(seed=seed) for seed in range(3)]

    results = engine_of(Nearest()).start(windows).finish()

    for window, result in zip(windows, results, strict=True):
        assert result.dtype == window.dtype
        assert result.flags.c_contiguous
        assert np.array_equal(result, window.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        *((3.0, 255), (-3.0, 0), (1e30, 255), (-1e30, 0)),
        *((0.49 / 255, 100), (0.51 / 255, 101), (-0.49 / 255, 100)),
    ],
)
def test_results_are_rounded_to_the_nearest_level_and_clamped_not_wrapped(
    by: float, expected: int
) -> None:
    flat = np.full((4, 4, 3), 100, np.uint8)

    (result,) = engine_of(Nearest(after=Brighten(by))).start([flat]).finish()

    assert (result == expected).all()


def test_reducing_averages_before_it_rounds() -> None:
    """Four results of 100.4 are 100 each; of 100.4, 100.4, 100.4 and 101.4 the mean is 100.65."""
    levels = torch.tensor([[100.4, 100.4], [100.4, 101.4]])
    result = (levels / 255).expand(1, 3, 2, 2).clone()

    assert to_windows(result.clone(), 1)[0].max() == 101
    assert to_windows(result.clone(), 1)[0].min() == 100
    assert (to_windows(result.clone(), 2)[0] == 101).all()


def test_reducing_averages_after_it_clamps() -> None:
    """A ringing edge far beyond white must not lighten its dark neighbour."""
    levels = torch.tensor([[3.0, 0.0], [0.0, 0.0]])

    (reduced,) = to_windows(levels.expand(1, 3, 2, 2).clone(), 2)

    assert (reduced == 64).all()


def test_a_window_is_copied_to_the_device_as_bytes_and_channels_last() -> None:
    tensor = to_input([noise(5, 6)], torch.device("cpu"))

    assert tensor.shape == (1, 3, 5, 6)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(tensor[0].permute(1, 2, 0).numpy() * 255, noise(5, 6))


def test_a_read_only_window_is_accepted() -> None:
    window = noise()
    window.flags.writeable = False

    (result,) = engine_of(Nearest()).start([window]).finish()

    assert np.array_equal(result[::2, ::2], window)


@pytest.mark.parametrize(
    ("windows", "is_exact", "runs"),
    [
        pytest.param([noise()], False, 1, id="a result that overflows in a short type"),
        pytest.param([noise(seed=1), noise(seed=2)], False, 1, id="that of two which overflows"),
        pytest.param([noise(seed=1), noise(seed=2)], True, 2, id="each of an exact request"),
        pytest.param([deep_noise()], False, 1, id="16 bits"),
    ],
)
def test_float32_computes_what_a_short_type_cannot(
    windows: list[Window], is_exact: bool, runs: int
) -> None:
    network = Overflows()

    results = engine_of(network, CPU_HALF, native_scale=1).start(windows, is_exact=is_exact)

    for result, window in zip(results.finish(), windows, strict=True):
        assert np.array_equal(result, window)
    assert network.runs == [torch.float32] * runs  # a short-typed run is that of the copy


@pytest.mark.parametrize("draw", NOISES)
@pytest.mark.parametrize("device", DEVICES[:2])
def test_a_result_that_is_not_finite_in_float32_is_an_error(draw: Noise, device: Device) -> None:
    with pytest.raises(ResultNotFinite):
        engine_of(Overflows(always=True), device, native_scale=1).start([draw()]).finish()


def test_16_bits_are_averaged_before_they_are_rounded() -> None:
    window = deep_noise()

    (result,) = engine_of(Nearest(1), native_scale=1).start([window], 2).finish()

    squares = window.reshape(12, 2, 16, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(result - squares).max() <= 0.5 + 1e-2


def plain_engine(device: Device) -> TorchEngine:
    torch.manual_seed(7)
    network = build_network("plain", plain_shape(scale=4, layers=2, features=8))
    return engine_of(network, device, native_scale=4)


def test_16_bits_are_what_float64_computes_to_the_level() -> None:
    window = deep_noise()

    (result,) = plain_engine(CPU_HALF).start([window]).finish()

    pixels = torch.from_numpy(window.astype(np.float64) / 65535).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = plain_engine(CPU).exact_network.double()(pixels).clamp(0, 1)
    levels = expected[0].permute(1, 2, 0).numpy() * 65535
    assert np.abs(result - levels).max() <= 0.5 + 0.05


def test_flat_colours_of_16_bits_are_returned_unchanged() -> None:
    engine = plain_engine(CPU)
    for level in range(0, 65536, 4369 // 3):
        flat = np.full((16, 16, 3), level, np.uint16)
        assert (engine.start([flat]).finish()[0] == level).all()


class Full(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_out_of_memory_is_recognised_by_its_class(error: Exception) -> None:
    with pytest.raises(EngineOutOfMemory):
        engine_of(Full(error)).start([noise()]).finish()


def test_other_errors_are_not_reported_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="CUDA out of memory, it says"):
        engine_of(Full(RuntimeError("CUDA out of memory, it says"))).start([noise()]).finish()


def test_each_window_of_a_batch_equals_its_result_alone() -> None:
    torch.manual_seed(0)
    one = engine_of(nn.Conv2d(3, 3, 3, padding=1), native_scale=1)
    engine = one.sized(window_px=64, batch=3, proof="")
    windows = [noise(seed=seed) for seed in range(3)]

    together = engine.start(windows).finish()

    single = [engine.start([window]).finish()[0] for window in windows]
    assert all(np.array_equal(a, b) for a, b in zip(together, single, strict=True))
    assert not np.array_equal(together[0], together[1])


def test_the_label_names_backend_and_precision() -> None:
    assert engine_of(Nearest()).info.label == "torch float32"
    assert engine_of(Nearest(), CPU_HALF).info.label == "torch bfloat16"


def test_every_calling_thread_computes_on_the_engines_threads() -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            numbers.append(torch.get_num_threads())
            return x

    numbers: list[int] = []
    one = engine_of(Counting(), native_scale=1)
    two = engine_of(Counting(), replace(CPU, threads=2), native_scale=1)
    for engine in (two, one, two):
        engine.start([noise()]).finish()
        caller = threading.Thread(target=engine.start, args=([noise()],))
        caller.start()
        caller.join()

    assert numbers == [2, 2, 1, 1, 2, 2]


def test_no_gradient_is_kept() -> None:
    network = nn.Conv2d(3, 3, 3, padding=1)
    assert network.weight.requires_grad

    engine = engine_of(network, native_scale=1)
    engine.start([noise()]).finish()

    assert network.weight.grad is None


def test_the_interface_and_the_loop_load_no_torch() -> None:
    code = (
        "import sys, upscaled_models.backends.base, upscaled.image.decode;"
        "import upscaled.upscale.image_work;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
