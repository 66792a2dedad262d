"""What folding is worth: an x2 network in 8 bits with it and without, one after the other."""

import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch

from upscaled_models.backends.openvino.graph import build_graph, finish_window
from upscaled_models.backends.openvino.runtime import compile_graph
from upscaled_models.families import Shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.quantise.simulation import choose_ranges, freeze, simulate
from upscaled_models.weights import build_network

SIDE_PX = 256
ROUNDS = 12

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def runner(shape: Shape, side_px: int) -> Callable[[], float]:
    """Return a function that takes the seconds of one window, unfolding and skip included."""
    torch.manual_seed(0)
    simulation = simulate(build_network("plain", shape))
    choose_ranges(simulation, torch.rand(2, 3, 64, 64))
    graph = build_graph("plain", shape, freeze(simulation))
    graph.reshape([1, side_px, side_px, 3])
    request = compile_graph(graph, precision="f32", threads=1).create_infer_request()
    window = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)

    def run() -> float:
        began = time.perf_counter()
        request.infer([window[None]], share_inputs=True)
        finish_window(request.get_output_tensor(0).data[0], window, "plain", 1)
        return time.perf_counter() - began

    return run


@pytest.fixture
def one_opencv_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.usefixtures("one_opencv_thread")
def test_folding_makes_x2_nearly_as_fast_as_x4_for_a_result_of_the_same_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runners = {
        "x2": runner(plain_shape(2, layers=16, features=48), SIDE_PX),
        "x2 folded": runner(plain_shape(2, layers=16, features=48, fold=2), SIDE_PX),
        "x4": runner(plain_shape(4, layers=16, features=48), SIDE_PX // 2),
    }
    best = dict.fromkeys(runners, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runners.items():
            best[name] = min(best[name], run())
    with capsys.disabled():
        print({name: f"{1e3 * seconds:.1f} ms" for name, seconds in best.items()})
    assert best["x2 folded"] < best["x2"] / 2
    assert best["x2 folded"] < 1.5 * best["x4"]
