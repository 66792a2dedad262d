import gc
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from _pytest.mark import ParameterSet

from tests.models.backends.openvino.test_engine import draw_window, engine_of
from upscaled_models.backends.base import Band, BandEngine, Column, Window
from upscaled_models.backends.openvino.columns import BandGraphs
from upscaled_models.backends.openvino.engine import OpenVinoBandEngine, OpenVinoPrecision
from upscaled_models.backends.openvino.ready_graphs import ReadyGraphs
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape

NETWORKS: Sequence[tuple[Family, Shape]] = (
    ("plain", plain_shape(scale=4, layers=2, features=8)),
    ("plain", plain_shape(scale=2, layers=3, features=16)),
    ("plain", plain_shape(scale=2, layers=2, features=16, fold=2)),
    ("srvgg", srvgg_shape(4, 2, 16)),
    ("srvgg", srvgg_shape(2, 3, 16, "leakyrelu")),
)
PRECISIONS: Sequence[OpenVinoPrecision] = ("int8", "float32", "bfloat16")


def list_cases() -> Iterator[ParameterSet]:
    """Every network in every precision; in floats, those after the first of a family are slow."""
    for precision in PRECISIONS:
        for at, (family, shape) in enumerate(NETWORKS):
            is_slow = precision != "int8" and at not in (0, 3)
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(family, shape, precision, marks=marks)


def open_bands(
    family: Family = "plain",
    shape: Shape = NETWORKS[0][1],
    precision: OpenVinoPrecision = "int8",
    weights: float | None = None,
) -> OpenVinoBandEngine:
    if precision == "bfloat16" and not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    engine = engine_of(family, shape, precision, weights=weights)
    assert isinstance(engine, OpenVinoBandEngine)
    return engine


def cut(column: Column, window: Window, radius_px: int, ends: Sequence[int]) -> Iterator[Band]:
    """Cut a window into bands whose own rows end at `ends`, the last at its end."""
    made_before = 0
    for first, end in zip((0, *ends), (*ends, len(window)), strict=False):
        is_last = end == len(window)
        top = max(0, made_before - radius_px) if first else 0
        made_end = end if is_last else end - radius_px
        made = range(made_before - top, made_end - top)
        yield Band(column, window[top:end], first - top, made, is_last)
        made_before = made_end


def run(engine: OpenVinoBandEngine, window: Window, ends: Sequence[int], reduce: int = 1) -> Window:
    column = engine.open_column()
    bands = cut(column, window, engine.info.spec.radius_px, ends)
    return np.concatenate([column.start(band, reduce).finish()[0] for band in bands])


@pytest.mark.parametrize(("family", "shape", "precision"), list(list_cases()))
def test_bands_give_the_pixels_of_the_whole_window(
    family: Family, shape: Shape, precision: OpenVinoPrecision
) -> None:
    engine = open_bands(family, shape, precision)
    window = draw_window(112, 36)
    for reduce in (1, 2):
        (expected,) = engine.start([window], reduce).finish()
        for ends in ([32, 70], [40], [30, 58, 86]):
            got = run(engine, window, ends, reduce).astype(int)
            assert got.shape == expected.shape
            assert np.abs(got - expected).max() <= (1 if precision == "float32" else 0)


def test_inner_bands_of_a_usual_shape_get_a_graph_of_their_own_with_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[bool] = []
    compute = BandGraphs.compute

    def record(self: BandGraphs, *arguments: object) -> object:
        result = compute(self, *arguments)  # type: ignore[arg-type]
        made.append(result.is_planar)
        return result

    monkeypatch.setattr("upscaled_models.backends.openvino.columns._PX_BEFORE_OWN_GRAPH", 2 * 31)
    monkeypatch.setattr(BandGraphs, "compute", record)
    engine = open_bands()
    window = draw_window(150, 31)
    (expected,) = engine.start([window]).finish()
    assert np.array_equal(run(engine, window, [30, 60, 90, 120]), expected)
    assert made == [True, True, False, False, True], "a shape is new once; ends are always"
    assert np.array_equal(run(engine, window, [30, 60, 90, 120]), expected)
    assert made[5:] == [True, False, False, False, True]


def test_graphs_for_bands_are_made_once_they_save_what_making_them_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("upscaled_models.backends.openvino.columns.PX_BEFORE_BANDS", 5000)
    engine = open_bands()
    resized = engine.sized(window_px=32, batch=1, proof="")
    assert isinstance(resized, OpenVinoBandEngine)
    assert [each.prefers_bands(2000) for each in (engine, resized) * 2] == [False] * 3 + [True]


def test_columns_under_way_at_once_do_not_mix() -> None:
    engine = open_bands()
    windows = [draw_window(96, 40, seed) for seed in range(3)]
    expected = [engine.start([window]).finish()[0] for window in windows]
    columns = [engine.open_column() for _ in windows]
    cuts = [
        cut(column, window, engine.info.spec.radius_px, [32, 64])
        for column, window in zip(columns, windows, strict=True)
    ]
    started = [[band.column.start(band) for band in bands] for bands in zip(*cuts, strict=True)]
    for at, whole in enumerate(expected):
        got = np.concatenate([bands[at].finish()[0] for bands in started])
        assert np.array_equal(got, whole)


def test_a_band_may_be_written_over_once_it_is_started() -> None:
    engine = open_bands()
    window = draw_window(96, 40)
    (expected,) = engine.start([window]).finish()
    column = engine.open_column()
    results = []
    for band in cut(column, window, engine.info.spec.radius_px, [32, 64]):
        own = replace(band, window=band.window.copy())
        started = column.start(own)
        own.window[:] = 0
        results.append(started.finish()[0])
    assert np.array_equal(np.concatenate(results), expected)


def test_a_band_whose_result_is_not_finite_is_computed_in_float32_from_its_window() -> None:
    engine = open_bands(precision="float32", weights=1e30)
    window = draw_window(96, 40)
    calm = open_bands(precision="float32").exact
    engine = replace(engine, exact=calm)
    (expected,) = calm.start([window], is_exact=True).finish()
    got = run(engine, window, [32, 64]).astype(int)
    assert np.abs(got - expected).max() <= 1


def test_short_memory_is_reported_as_such_and_leaves_the_column_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = open_bands()
    window = draw_window(96, 40)
    (expected,) = engine.start([window]).finish()
    column = engine.open_column()
    first, inner, last = cut(column, window, engine.info.spec.radius_px, [32, 64])
    results = [column.start(first).finish()[0]]
    with monkeypatch.context() as patched:
        patched.setattr(BandGraphs, "compute", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(EngineOutOfMemory, match="in OpenVINO"):
            column.start(inner)
    results += [column.start(band).finish()[0] for band in (inner, last)]
    assert np.array_equal(np.concatenate(results), expected)


def test_what_a_column_keeps_is_freed_with_it() -> None:
    engine = open_bands()
    column = engine.open_column()
    for band in cut(column, draw_window(96, 40), engine.info.spec.radius_px, [32, 64]):
        column.start(band).finish()
        gone = weakref.ref(band.window)
    del band
    gc.collect()
    assert gone() is None
    assert column.kept == []


def test_the_memory_of_layers_is_freed_with_the_first_and_the_last_band(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed: list[ReadyGraphs] = []
    monkeypatch.setattr(ReadyGraphs, "release_all_memory", lambda each: freed.append(each))
    engine = open_bands()
    column, counts = engine.open_column(), []
    for band in cut(column, draw_window(96, 40), engine.info.spec.radius_px, [32, 64]):
        column.start(band).finish()
        counts.append(len(freed))
    assert counts == [1, 1, 4], "of the first, the last, and both graphs of inner bands"
    assert len({id(each) for each in freed}) == 4


def test_a_single_part_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_bands(precision="float32")
    window = draw_window(96, 40)
    (expected,) = engine.exact.start([window], is_exact=True).finish()
    compute = BandGraphs.compute

    def damage(self: BandGraphs, *arguments: object) -> object:
        made = compute(self, *arguments)  # type: ignore[arg-type]
        made.parts[damaged[0] % len(made.parts)].flat[0] = np.nan
        return made

    monkeypatch.setattr(BandGraphs, "compute", damage)
    damaged = [0]
    for damaged[0] in (0, 1):
        got = run(engine, window, [32, 64]).astype(int)
        assert np.abs(got - expected).max() <= 1


def test_chains_of_convolutions_compute_bands_and_other_networks_do_not() -> None:
    for family, shape in NETWORKS:
        engine = engine_of(family, shape)
        assert isinstance(engine, BandEngine)
        assert engine.info.computes_bands
        assert isinstance(engine.sized(window_px=96, batch=1, proof=""), BandEngine)
    rrdb = engine_of("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=16, num_grow_ch=8))
    assert not isinstance(rrdb, BandEngine)
    assert not rrdb.info.computes_bands
    assert not isinstance(engine_of().exact, BandEngine)
