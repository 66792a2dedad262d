import tracemalloc
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.quantise.test_rounding import levels_of
from tests.models.specs import spec_of
from upscaled_models.backends.base import LoadedModel
from upscaled_models.backends.device import Device
from upscaled_models.backends.openvino import ready_graphs
from upscaled_models.backends.openvino.engine import (
    OpenVinoEngine,
    OpenVinoPrecision,
    open_openvino,
)
from upscaled_models.backends.openvino.graph import build_graph
from upscaled_models.backends.openvino.layers import layers_of
from upscaled_models.backends.openvino.ready_graphs import ReadyGraphs
from upscaled_models.backends.openvino.runtime import compile_graph, has_fast_bfloat16
from upscaled_models.backends.torch.engine import open_torch
from upscaled_models.errors import EngineOutOfMemory, ResultNotFinite
from upscaled_models.families import FAMILIES, Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.networks import strips
from upscaled_models.networks.table import NETWORKS
from upscaled_models.quantise.rounding import round_layers
from upscaled_models.weights import build_network

CPU = Device(torch.device("cpu"), torch.float32, threads=1)
PLAIN = plain_shape(scale=4, layers=2, features=8)
FLOAT_LAYERS = (FAMILIES["rrdb"].float_layer, *FAMILIES["rrdb"].tail_layers)
SMALL_RRDB = rrdb_shape(scale=4, num_block=1, num_feat=16, num_grow_ch=8)


def engine_of(
    family: Family = "plain",
    shape: Shape = PLAIN,
    precision: OpenVinoPrecision = "float32",
    *,
    weights: float | None = None,
    threads: int = 1,
) -> OpenVinoEngine:
    """An engine of a network with random weights, or with one value for all of them.

    In 8 bits it is an RRDB network, whose tail stays in floats.
    """
    torch.manual_seed(7)
    network = build_network(family, shape)
    state = {key: value.numpy().copy() for key, value in network.state_dict().items()}
    if weights is not None:
        state = {key: np.full_like(value, weights) for key, value in state.items()}
    model = LoadedModel(spec_of("any", family, shape), network, window_px=64)
    exact = open_torch(model, replace(CPU, threads=threads))
    layers = layers_of(state)
    if precision == "int8":
        layers = round_layers(state, levels_of(state), FLOAT_LAYERS)
    engine = open_openvino(model, exact, layers, precision)
    return engine.sized(window_px=64, batch=4, proof="")


def draw_window(height: int = 32, width: int = 64, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("reduce", [1, 2, 4])
def test_a_batch_gives_what_torch_gives(reduce: int) -> None:
    engine = engine_of()
    windows = [draw_window(seed=seed) for seed in range(3)]
    expected = engine.exact.start(windows, reduce).finish()
    got = engine.start(windows, reduce).finish()
    assert len(got) == 3
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= 1  # where float32 lies between two levels


def test_two_batches_may_be_under_way() -> None:
    engine = engine_of()
    first, second = draw_window(seed=1), draw_window(seed=2)
    started = engine.start([first]), engine.start([second])
    for batch, window in reversed(list(zip(started, (first, second), strict=True))):
        (got,) = batch.finish()
        assert batch.is_done
        np.testing.assert_array_equal(got, engine.start([window]).finish()[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_concurrent_engine_gives_the_same_pixels_on_half_of_the_cores(
    precision: OpenVinoPrecision,
) -> None:
    if precision == "bfloat16" and not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    engine = engine_of(precision=precision, threads=4)
    assert (engine.graphs.threads, engine.concurrent.graphs.threads) == (4, 2)
    assert engine_of().concurrent.graphs.threads == 1
    window = draw_window()
    (expected,) = engine.start([window]).finish()
    np.testing.assert_array_equal(engine.concurrent.start([window]).finish()[0], expected)


def test_a_result_is_not_copied_before_it_is_converted() -> None:
    window = draw_window(256, 256)
    engine = engine_of()
    engine.start([window]).finish()
    tracemalloc.start()
    try:
        started = engine.start([window])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    result_bytes = 4 * 16 * window.size  # float32 at x4
    assert result_bytes <= peak_bytes < 1.5 * result_bytes
    started.finish()


def test_a_window_may_be_written_over_once_it_is_started() -> None:
    engine = engine_of()
    window = draw_window()
    (expected,) = engine.start([window]).finish()
    started = engine.start([window])
    window[:] = 0
    np.testing.assert_array_equal(started.finish()[0], expected)


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU has no bfloat16 of its own")
def test_bfloat16_is_within_8_levels_of_float32_and_exact_on_flat_colours() -> None:
    engine = engine_of(precision="bfloat16")
    window = draw_window()
    (got,) = engine.start([window]).finish()
    (exact,) = engine.start([window], is_exact=True).finish()
    errors = np.abs(got.astype(int) - exact)
    assert 0 < errors.max() <= 8
    for level in range(0, 256, 5):
        flat = np.full((32, 32, 3), level, np.uint8)
        assert (engine.start([flat]).finish()[0] == level).all()


@pytest.mark.parametrize(
    ("weights", "is_exact"),
    [
        pytest.param(None, True, id="an exact request"),
        pytest.param(1e30, False, id="a result that is not finite"),
    ],
)
def test_torch_computes_exact_requests_and_results_that_are_not_finite(
    weights: float | None, is_exact: bool
) -> None:
    engine = engine_of(weights=weights)
    window = draw_window()
    (expected,) = engine.exact.start([window], 2).finish()
    (got,) = engine.start([window], 2, is_exact=is_exact).finish()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_16_bits_are_computed_by_torch_in_float32(precision: OpenVinoPrecision) -> None:
    engine = engine_of(precision=precision)
    draw = np.random.default_rng(0)
    windows = [draw.integers(0, 65536, (24, 32, 3), np.uint16) for _ in range(2)]

    results = engine.start(windows, 2).finish()

    for result, expected in zip(results, engine.exact.start(windows, 2).finish(), strict=True):
        assert result.dtype == np.uint16
        assert np.array_equal(result, expected)


def test_a_strict_engine_refuses_a_result_that_is_not_finite() -> None:
    with pytest.raises(ResultNotFinite):
        engine_of(weights=1e30).strict().start([draw_window()]).finish()


def test_only_the_last_shapes_are_kept_ready() -> None:
    engine = engine_of()
    most = NETWORKS["plain"].max_ready_shapes
    for width in range(1, 3 + most):
        engine.start([draw_window(16, width)]).finish()
    assert len(engine.graphs.compiled) == most
    assert (1, 16, width, 3) in engine.graphs.compiled


def test_a_small_odd_shape_of_a_large_network_is_not_compiled() -> None:
    engine = engine_of("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4))
    engine.start([draw_window(17, 23)]).finish()
    assert not engine.graphs.compiled
    engine.start([draw_window(32, 64)]).finish()
    assert list(engine.graphs.compiled) == [(1, 32, 64, 3)]


def test_an_engine_under_trial_runs_every_shape_as_a_graph() -> None:
    """Proofs of RRDB in bfloat16 and 8 bits were of float32: their pictures have odd shapes."""
    engine = engine_of("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4))
    tried = engine.strict()
    tried.start([draw_window(17, 23)]).finish()
    tried.start([draw_window(32, 32)]).finish()
    assert list(engine.graphs.compiled) == [(1, 17, 23, 3), (1, 32, 32, 3)]
    serving = tried.sized(window_px=32, batch=1, proof="")
    assert list(serving.graphs.compiled) == [(1, 32, 32, 3)], "the others would only take memory"


@pytest.mark.slow
def test_a_trunk_in_8_bits_is_compiled_once_for_windows_of_every_size() -> None:
    engine = engine_of("rrdb", SMALL_RRDB, "int8")
    sizes = [(32, 64), (17, 23), (32, 64), (40, 31)]
    for height, width in sizes:
        pixels = draw_window(height, width)[None]
        fixed = replace(engine.graphs, is_any_size=False, compiled=OrderedDict())
        expected, got = fixed.compute(pixels).values, engine.graphs.compute(pixels).values
        assert list(fixed.compiled) == [(1, height, width, 3)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1.0)
    assert list(engine.graphs.compiled) == [(1, -1, -1, 3)]
    assert list(engine.graphs.of_side(96).compiled) == [(1, -1, -1, 3)], "it is ready for them too"


@pytest.mark.parametrize(("family", "shape"), [("plain", PLAIN), ("srvgg", srvgg_shape(4, 2, 8))])
def test_a_shape_is_compiled_for_a_small_network_in_8_bits_after_several_uses(
    family: Family, shape: Shape
) -> None:
    engine = engine_of(family, shape, "int8")
    assert engine.info.takes_new_shapes
    any_size = engine.graphs.any_size
    assert any_size is not None
    assert any_size.copying is engine.graphs.copying, "they share the graph"
    for height, width in [(32, 64), (17, 23), (40, 31)]:
        engine.graphs.px_before_compiling = 3 * height * width
        window = draw_window(height, width)
        fixed = replace(engine.graphs, any_size=None, compiled=OrderedDict())
        (expected,) = replace(engine, graphs=fixed).start([window]).finish()
        for _ in range(3):
            assert np.array_equal(engine.start([window]).finish()[0], expected)
            assert (1, height, width, 3) not in engine.graphs.compiled
            assert list(any_size.compiled) == [(1, -1, -1, 3)]
        assert np.array_equal(engine.start([window]).finish()[0], expected)
        assert (1, height, width, 3) in engine.graphs.compiled
        assert not engine.graphs.computed_px, "it has to come as often again once it is dropped"


def test_a_result_by_the_graph_for_any_size_outlives_later_ones_and_the_graphs_memory() -> None:
    """Requests hold results, and are used again; the rest is freed for a graph of one shape."""
    engine = engine_of(precision="int8")
    any_size = engine.graphs.any_size
    assert any_size is not None
    windows = [draw_window(40 + 8 * seed, 64, seed) for seed in range(5)]
    fixed = replace(engine, graphs=replace(engine.graphs, any_size=None, compiled=OrderedDict()))
    waiting = engine.start(windows[:1])
    for before, window in pairwise(windows):
        started = engine.start([window])
        any_size.release_all_memory()
        assert np.array_equal(waiting.finish(), fixed.start([before]).finish())
        waiting = started
    assert np.array_equal(waiting.finish(), fixed.start(windows[-1:]).finish())


def test_batches_of_another_number_are_computed_while_a_request_is_kept() -> None:
    engine = engine_of(precision="int8")
    windows = [draw_window(40, 56, seed) for seed in range(3)]
    expected = [engine.start([window]).finish()[0] for window in windows]
    waiting = engine.start(windows[:1])
    for count in (2, 1, 3, 1):
        started = engine.start(windows[:count])
        del waiting  # its request is kept, as another result is in use
        waiting = engine.start(windows[:count])
        for got in (started.finish(), waiting.finish()):
            assert np.array_equal(got, expected[:count])
        del started


def test_the_graph_for_any_size_frees_its_memory_when_a_shape_gets_a_graph_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed: list[ReadyGraphs] = []
    monkeypatch.setattr(ReadyGraphs, "release_all_memory", lambda each: freed.append(each))
    engine = engine_of(precision="int8")
    engine.start([draw_window()]).finish()
    assert freed == []
    engine.graphs.px_before_compiling = 0
    engine.start([draw_window()]).finish()
    assert len(freed) == 1
    assert freed[0] is engine.graphs.any_size


def test_a_small_network_is_tried_by_graphs_of_single_shapes_and_new_ones_follow_its_windows() -> (
    None
):
    engine = engine_of(precision="int8")
    tried = engine.strict()
    tried.start([draw_window(64, 64)]).finish()
    tried.start([draw_window(17, 23)]).finish()
    assert list(engine.graphs.compiled) == [(1, 64, 64, 3), (1, 17, 23, 3)]
    serving = tried.sized(window_px=64, batch=1, proof="")
    serving.start([draw_window(64, 64)]).finish()
    assert serving.graphs.any_size is not None
    assert not serving.graphs.any_size.compiled
    assert list(serving.graphs.compiled) == [(1, 64, 64, 3)]


def test_a_second_thread_has_graphs_and_counts_of_its_own() -> None:
    """They change with each window, and the first thread computes meanwhile."""
    engine = engine_of(precision="int8", threads=4)
    engine = replace(engine, concurrent_graphs=engine.graphs.on_fewer_threads())
    one, other = engine.graphs, engine.concurrent.graphs
    assert one.any_size is not None
    assert other.any_size is not None
    window, shape = draw_window(17, 23), (1, 17, 23, 3)
    engine.concurrent.start([window]).finish()
    assert (list(one.computed_px), list(other.computed_px)) == ([], [shape])
    assert (len(one.any_size.compiled), len(other.any_size.compiled)) == (0, 1)
    assert (one.any_size.threads, other.any_size.threads) == (4, 2)
    assert one.any_size.requests is not other.any_size.requests
    other.px_before_compiling = 0
    engine.concurrent.start([window]).finish()
    assert (list(one.compiled), list(other.compiled)) == ([], [shape])


def test_the_counts_of_rarely_used_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_graphs, "_MOST_COUNTED", 2)
    engine = engine_of(precision="int8")
    for width in range(20, 24):
        engine.start([draw_window(16, width)]).finish()
    assert list(engine.graphs.computed_px) == [(1, 16, 22, 3), (1, 16, 23, 3)]


def test_networks_in_floats_and_large_ones_have_no_graph_for_new_shapes() -> None:
    for engine in (engine_of(), engine_of("rrdb", SMALL_RRDB, "int8")):
        assert engine.graphs.any_size is None
        assert not engine.info.takes_new_shapes


def test_a_small_odd_shape_runs_in_the_graph_for_any_shape() -> None:
    engine = engine_of("rrdb", SMALL_RRDB, "int8")
    window = draw_window(17, 23)
    (exact,) = engine.start([window], is_exact=True).finish()
    (before,) = engine.start([window]).finish()
    engine.start([draw_window(32, 64)]).finish()
    (after,) = engine.start([window]).finish()
    np.testing.assert_array_equal(before, exact)
    assert (after != exact).any()


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU has no bfloat16 of its own")
def test_the_tail_of_a_trunk_in_8_bits_is_computed_in_bfloat16() -> None:
    engine = engine_of("rrdb", SMALL_RRDB, "int8")
    assert engine.graphs.tail is not None
    assert (engine.graphs.hint, engine.graphs.tail.hint) == ("f32", "bf16")
    pixels = draw_window()[None]
    float32 = replace(
        engine.graphs, tail=replace(engine.graphs.tail, hint="f32", compiled=OrderedDict())
    )
    error = np.abs(engine.graphs.compute(pixels).values - float32.compute(pixels).values).max()
    assert 0 < error <= 1


def test_rrdb_is_tried_in_the_precision_that_it_serves_in() -> None:
    if not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    shape = rrdb_shape(scale=4, num_block=1, num_feat=16, num_grow_ch=8)
    engine = engine_of("rrdb", shape, "bfloat16")
    windows = [draw_window(17, 23)]
    (exact,) = engine.start(windows, is_exact=True).finish()
    (unlike,) = engine.strict().start(windows).finish()
    errors = np.abs(unlike.astype(int) - exact)
    assert 0 < errors.max() <= 8


# Largest difference in levels: by the order of sums; by one step of bfloat16 at 255.
@pytest.mark.parametrize(("precision", "largest"), [("float32", 1e-3), ("bfloat16", 1.0)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_tail_in_strips_gives_what_one_graph_gives(
    precision: OpenVinoPrecision, largest: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "bfloat16" and not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    windows = [draw_window(96, 64, seed) for seed in range(count)]
    engine = engine_of("rrdb", SMALL_RRDB, precision)
    assert engine.graphs.tail is not None
    state = {key: value.numpy() for key, value in engine.exact.exact_network.state_dict().items()}
    whole = compile_graph(
        build_graph("rrdb", SMALL_RRDB, layers_of(state)), precision=engine.graphs.hint, threads=1
    )
    expected = whole(np.stack(windows))[0]
    monkeypatch.setattr(strips, "STRIP_PX", 20 * 64)
    got = engine.graphs.compute(np.stack(windows)).values
    assert list(engine.graphs.tail.compiled) == [(1, 20, 64, 16)], "several strips of one height"
    np.testing.assert_allclose(got, expected, rtol=0, atol=largest)


def test_a_network_with_a_folded_trunk_runs_its_tail_too() -> None:
    shape = rrdb_shape(scale=2, num_block=1, num_feat=16, num_grow_ch=8)
    engine = engine_of("rrdb", shape)
    window = draw_window(64, 96)
    (expected,) = engine.exact.start([window]).finish()
    (got,) = engine.start([window]).finish()
    assert got.shape == (128, 192, 3)
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_results_of_a_large_network_are_valid_after_the_next_batch_started() -> None:
    engine = engine_of("rrdb", SMALL_RRDB)
    first, second = draw_window(seed=1), draw_window(seed=2)
    started = engine.start([first])
    again = engine.start([second])
    for batch, window in ((started, first), (again, second)):
        (exact,) = engine.exact.start([window]).finish()
        assert np.abs(batch.finish()[0].astype(int) - exact).max() <= 1


def test_openvinos_failures_lead_to_smaller_windows() -> None:
    engine = engine_of("srvgg", srvgg_shape(upscale=4, num_conv=1, num_feat=8))
    engine.graphs.request((1, 32, 64, 3))
    with pytest.raises(EngineOutOfMemory, match="32, 64"):
        replace(engine, graphs=_Exhausted()).start([draw_window()])  # type: ignore[arg-type]


class _Exhausted:
    def has(self, shape: tuple[int, ...]) -> bool:
        return True

    def compute(self, pixels: NDArray[np.uint8], *, is_tried: bool) -> None:
        raise RuntimeError("bad allocation")


def test_the_label_names_backend_and_precision() -> None:
    engine = engine_of()
    assert engine.info.label == "openvino float32"
    sized = engine.strict().sized(window_px=96, batch=2, proof="57 dB")
    assert (sized.info.window_px, sized.info.batch, sized.info.proof) == (96, 2, "57 dB")
    assert not sized.is_strict
