"""Images through a network in bands: exactly the pixels of the whole image, no row of it twice."""

import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.service.upscale.band_box_engine import BandBoxEngine
from tests.service.upscale.box_engine import (
    BoxEngine,
    RowsReady,
    average_down,
    box_sum,
    finish,
    stream_of,
    upscale_through,
)
from tests.service.upscale.test_content import LayeredEngine, run_of
from tests.service.upscale.test_loop import noise, untiled
from tests.service.upscale.true_engine import TrueEngine
from upscaled.errors import InternalError
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.bands import BandJoiner, open_bands
from upscaled.upscale.concurrency import Cancelled
from upscaled.upscale.content import make_tiling
from upscaled.upscale.loop import TilesDone, upscale_by_tiles
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.post_process.tempering import Tempering
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.stream import BATCHES_AHEAD
from upscaled_models.backends.base import EngineInfo, Window, least_window_px, round_up
from upscaled_models.errors import EngineOutOfMemory

WINDOW_PX = 40
"""Enough for bands of the box filter, whose radius is 3."""


def least_window_for_bands_px(halo_px: int, multiple_px: int) -> int:
    """The side of the smallest square whose pixels are enough for bands."""
    return math.isqrt(4 * (halo_px + multiple_px) * least_window_px(halo_px, 32)) + 1


@pytest.mark.parametrize("cases", [20, pytest.param(400, marks=pytest.mark.slow)])
def test_bands_give_the_pixels_of_the_whole_image_on_random_sizes(cases: int) -> None:
    chance, counts, sides = random.Random(8), list[int](), set[int]()
    for case in range(cases):
        radius, multiple = chance.randint(1, 9), chance.choice([1, 1, 2, 4])
        engine = BandBoxEngine(
            radius_px=radius,
            halo_px=radius,
            multiple_px=multiple,
            fold=multiple,
            native_scale=chance.choice([2, 4]),
            window_px=least_window_for_bands_px(radius, multiple) + chance.randint(0, 20),
            shape_step_px=round_up(chance.choice([1, 8, 16]), multiple),
            takes_new_shapes=case % 2 == 1,
        )
        rgb = noise(chance.randint(1, 220), chance.randint(1, 190), seed=case)

        result = upscale_through(Image(rgb), engine.native_scale, engine)

        assert np.array_equal(result.rgb, untiled(rgb, engine)), (case, engine, rgb.shape)
        counts.append(len(engine.bands))
        sides.add(len(engine.columns))
    assert counts.count(0) < cases / 2
    assert max(counts) > 15
    assert {0, 1, 2} <= sides


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_bands_give_the_pixels_of_the_whole_image_for_every_height(multiple: int) -> None:
    """From one window to several bands: the last has more rows, until there is one band more."""
    counts = set()
    for height in range(14, 46):
        engine = BandBoxEngine(window_px=44, multiple_px=multiple, fold=multiple)
        widest = 44**2 // (4 * (engine.radius_px + multiple))
        rgb = noise(height, widest // 12 * 12 - 1, seed=height)
        result = upscale_through(Image(rgb), 2, engine)
        assert np.array_equal(result.rgb, untiled(rgb, engine)), height
        counts.add(len(engine.bands))
    assert {0, 2, 3} <= counts <= {0, 2, 3, 4, 5}


def test_no_pixel_of_a_column_as_wide_as_its_image_is_computed_twice() -> None:
    engine, rgb = BandBoxEngine(window_px=WINDOW_PX), noise(200, 60)

    result = upscale_through(Image(rgb), 2, engine)

    assert np.array_equal(result.rgb, untiled(rgb, engine))
    assert engine.seen == []
    assert sum(height for height, _ in engine.bands) == 200
    assert {width for _, width in engine.bands} == {60}
    assert len(engine.columns) == 1


def test_columns_of_a_wide_image_go_through_the_network_beside_each_other() -> None:
    """Row by row, so that rows of the result are final long before the last column begins."""
    engine, rgb = BandBoxEngine(window_px=WINDOW_PX), noise(120, 300)
    with stream_of(engine) as stream:
        rows = RowsReady(upscale_by_tiles(Image(rgb), 2, stream))

    rows.assert_final()
    assert np.array_equal(rows.canvases[-1].rgb, untiled(rgb, engine))
    assert len(engine.columns) > 2
    heights = [height for height, _ in engine.bands]
    assert heights == np.repeat(heights[:: len(engine.columns)], len(engine.columns)).tolist()
    assert len(rows.counts) == len(engine.bands) / len(engine.columns)


def test_a_column_fed_one_row_too_little_changes_the_result() -> None:
    """The proof that the tests above can fail: the radius that plans assume is one too short."""

    class Short(BandBoxEngine):
        @property
        def info(self) -> EngineInfo:
            info = super().info
            return replace(info, spec=replace(info.spec, radius_px=self.radius_px - 1))

    engine, rgb = Short(window_px=WINDOW_PX), noise(200, 60)
    assert not np.array_equal(upscale_through(Image(rgb), 2, engine).rgb, untiled(rgb, engine))
    assert len(engine.bands) > 3


@pytest.mark.parametrize(("native_scale", "scale"), [(4, 2), (2, 1), (4, 1)])
def test_bands_are_averaged_down_as_the_whole_image_is(native_scale: int, scale: int) -> None:
    engine, rgb = BandBoxEngine(window_px=WINDOW_PX, native_scale=native_scale), noise(150, 60)
    averaged = average_down(untiled(rgb, engine), native_scale // scale)
    assert np.array_equal(upscale_through(Image(rgb), scale, engine).rgb, averaged)
    assert len(engine.bands) > 3


def test_an_image_goes_through_the_network_twice_in_bands() -> None:
    engine, rgb = BandBoxEngine(window_px=WINDOW_PX), noise(70, 60)
    result = upscale_through(Image(rgb), 4, engine)
    assert np.array_equal(result.rgb, untiled(untiled(rgb, engine), engine))
    assert engine.seen == []
    assert len(engine.columns) > 2


@dataclass
class BandTrueEngine(TrueEngine, BandBoxEngine):
    """Repeats pixels, in bands as well; `fault` spoils what windows alone give."""


@dataclass
class BandLayeredEngine(LayeredEngine, BandBoxEngine):
    """Adds what convolutions make of differences: none where all is flat."""


@pytest.fixture
def cheap_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price in pixels that fits windows as small as these."""
    for name in ("READY_WINDOW_PRICE_PX", "COMPILED_WINDOW_PRICE_PX"):
        monkeypatch.setattr(f"upscaled.upscale.content.{name}", 50)


@pytest.mark.usefixtures("cheap_windows")
@pytest.mark.parametrize("takes_new_shapes", [False, True])
@pytest.mark.parametrize(("scale", "has_alpha"), [(2, False), (2, True), (4, False)])
def test_parts_of_an_image_with_flat_or_transparent_surroundings_are_computed_in_bands(
    scale: int, has_alpha: bool, takes_new_shapes: bool
) -> None:
    partial, in_bands = 0, 0
    for seed in range(9 if scale == 2 else 3):
        radius = seed % 3 + 2
        engine = BandLayeredEngine(
            radius_px=radius,
            halo_px=radius,
            window_px=least_window_for_bands_px(radius, 1) + seed,
            shape_step_px=8,
            takes_new_shapes=takes_new_shapes,
        )
        image, seen = run_of(seed, has_alpha=has_alpha)
        result = upscale_through(image, scale, engine)
        expected = engine.filter(seen) if scale == 2 else engine.filter(engine.filter(seen))
        is_visible = result.alpha > 0 if result.alpha is not None else np.s_[:]
        assert np.array_equal(result.rgb[is_visible], expected[is_visible]), seed
        full_px = seen.shape[0] * seen.shape[1] * (1 if scale == 2 else 5)
        partial += engine.computed_px < 0.8 * full_px
        in_bands += len(engine.bands) > 0
    assert partial > 0
    assert in_bands > 0


def test_a_full_image_costs_as_much_as_it_would_without_alpha() -> None:
    rgb = noise(120, 60)
    alpha = np.full(rgb.shape[:2], 90, np.uint8)
    engine = BandBoxEngine(window_px=WINDOW_PX)
    result = upscale_through(Image(rgb, alpha), 2, engine)
    assert np.array_equal(result.rgb, untiled(rgb, engine))
    assert engine.computed_px == 120 * 60


def test_images_at_once_each_have_their_own_columns() -> None:
    """Both have columns at the same places, and bands of the same sizes."""
    engine = BandBoxEngine(window_px=WINDOW_PX, batch=8)
    images = [noise(150, 150, seed) for seed in range(4)]

    with Scheduler() as scheduler, ThreadPoolExecutor(len(images)) as pool:

        def upscale(rgb: Pixels) -> Pixels:
            with scheduler.open_stream(engine) as stream:
                return finish(upscale_by_tiles(Image(rgb), 2, stream)).rgb

        results = list(pool.map(upscale, images))

    for rgb, result in zip(images, results, strict=True):
        assert np.array_equal(result, untiled(rgb, engine))
    assert len(engine.columns) >= 2 * len(images)


class NotBlack(PostProcessing):
    """Accepts every result that is not black."""

    def average_plausible(self, source: Window, result: Window) -> Window | None:
        gain = result.shape[0] // source.shape[0]
        assert result.shape[:2] == (source.shape[0] * gain, source.shape[1] * gain)
        return average_down(result, gain) if result.any() else None


@dataclass
class WrongOnce(BandBoxEngine):
    """Makes the result of one of its bands black: of the third, or another."""

    wrong: int = 3

    def filter(self, window: Window) -> Window:
        result = super().filter(window)
        return result * 0 if len(self.bands) == self.wrong and not self.exact else result


@pytest.mark.parametrize("multiple", [1, 2])
def test_a_band_that_fails_its_check_is_computed_again_by_itself_and_exactly(multiple: int) -> None:
    engine, rgb = WrongOnce(window_px=44, multiple_px=multiple, fold=multiple), noise(151, 60)

    result = upscale_through(Image(rgb), 2, engine, steps=NotBlack(checks=True))

    assert np.array_equal(result.rgb, untiled(rgb, BoxEngine(fold=multiple, multiple_px=multiple)))
    (exact,) = engine.exact
    height, _ = engine.bands[2]
    assert height < exact.shape[0] <= height + 2 * engine.radius_px + multiple
    assert len(engine.seen) == 1


@pytest.mark.parametrize("wrong", ["first", "last"])
def test_the_first_and_the_last_band_are_computed_again_as_well(wrong: str) -> None:
    rgb, counting = noise(150, 60), BandBoxEngine(window_px=WINDOW_PX)
    upscale_through(Image(rgb), 2, counting)
    engine = WrongOnce(window_px=WINDOW_PX, wrong=1 if wrong == "first" else len(counting.bands))

    result = upscale_through(Image(rgb), 2, engine, steps=NotBlack(checks=True))

    assert len(engine.exact) == 1
    assert np.array_equal(result.rgb, untiled(rgb, BoxEngine()))


def test_a_band_that_fails_its_check_twice_fails_its_image() -> None:
    @dataclass
    class Black(BandBoxEngine):
        def filter(self, window: Window) -> Window:
            return super().filter(window) * 0

    with pytest.raises(InternalError, match="fails its check"):
        upscale_through(
            Image(noise(150, 60)),
            2,
            Black(window_px=WINDOW_PX),
            steps=NotBlack(checks=True),
        )


@dataclass(frozen=True)
class Blurring(PostProcessing):
    """Adds the sum of the result around each pixel: `reads_px` source pixels of it."""

    reads_px: int = 4
    planned_px: int = 4

    def reach_px(self, gain: int) -> int:
        return self.planned_px

    def correct(self, source: Window, result: Window) -> Window:
        gain = result.shape[0] // source.shape[0]
        assert result.shape[1] == source.shape[1] * gain
        around = box_sum(result.astype(np.int64), self.reads_px * gain)
        mixed = result + 7 * source.repeat(gain, 0).repeat(gain, 1) + around
        return (mixed % 251).astype(np.uint8)


@pytest.mark.parametrize("size", [(150, 60), (151, 64), (90, 160)])
@pytest.mark.parametrize("native_scale", [2, 4])
def test_a_step_that_reads_rows_around_sees_those_of_the_bands_beside(
    size: tuple[int, int], native_scale: int
) -> None:
    engine, rgb = BandBoxEngine(window_px=50, native_scale=native_scale), noise(*size)
    steps = Blurring()
    result = upscale_through(Image(rgb), native_scale, engine, steps=steps)
    assert np.array_equal(result.rgb, steps.correct(rgb, untiled(rgb, engine)))
    assert len(engine.bands) > 3
    assert engine.computed_px < 1.5 * size[0] * size[1]


def test_a_step_that_reads_further_than_planned_changes_the_result() -> None:
    """The proof that the test above can fail."""
    engine, rgb, steps = BandBoxEngine(window_px=50), noise(150, 60), Blurring(planned_px=3)
    result = upscale_through(Image(rgb), 2, engine, steps=steps)
    assert not np.array_equal(result.rgb, steps.correct(rgb, untiled(rgb, engine)))


@dataclass
class ShiftingEngine(BandTrueEngine):
    """Makes all greener, the more so the brighter it is; black in its third band if `fails`."""

    fails: bool = False

    def filter(self, window: Window) -> Window:
        large = super().filter(window)
        shifted = np.asarray(large - large // np.array([9, 40, 7], np.uint8), np.uint8)
        shifted ^= box_sum(large.astype(np.int64), 2).astype(np.uint8) & 3
        return shifted * 0 if self.fails and len(self.bands) == 3 and not self.exact else shifted


def test_colours_are_corrected_as_those_of_the_whole_image() -> None:
    steps = PostProcessing(corrects_colours=True, checks=True)
    for size in ((150, 70), (120, 200), (161, 64)):
        engine, rgb = ShiftingEngine(window_px=60), noise(*size, seed=4)
        result = upscale_through(Image(rgb), 2, engine, steps=steps)
        assert np.array_equal(result.rgb, steps.correct(rgb, engine.filter(rgb))), size
        assert len(engine.bands) > 3, size


def test_nothing_of_a_band_that_failed_its_check_is_left_in_the_rows_of_the_next() -> None:
    """Correction of the next band's first rows reads rows of the failed one."""
    steps = PostProcessing(corrects_colours=True, checks=True)
    engine, rgb = ShiftingEngine(window_px=60, fails=True), noise(150, 70, seed=4)

    result = upscale_through(Image(rgb), 2, engine, steps=steps)

    expected = steps.correct(rgb, ShiftingEngine().filter(rgb))
    differing = np.argwhere((result.rgb != expected).any(axis=(1, 2))).ravel()
    assert differing.size == 0, differing
    assert len(engine.exact) >= 1


def test_fine_patterns_are_corrected_as_without_bands() -> None:
    steps = PostProcessing(corrects_patterns=True, checks=True)
    rgb = noise(150, 70, seed=5)
    rgb[::2] = 200
    engine = ShiftingEngine(window_px=60)
    with stream_of(engine) as stream:
        rows = RowsReady(upscale_by_tiles(Image(rgb), 2, stream, steps))
    rows.assert_final()
    whole = upscale_through(Image(rgb), 2, ShiftingEngine(window_px=1000), steps=steps)
    assert np.array_equal(rows.canvases[-1].rgb, whole.rgb)
    assert len(engine.bands) > 3


def test_joined_bands_hold_no_results_that_nothing_reads_again() -> None:
    tiling = make_tiling(BandBoxEngine(window_px=50).info, 7, 50)
    tiles = tiling.plan(120, 60)
    results = (
        np.full((2 * (band.made[1] - band.made[0]), 120, 3), at, np.uint8)
        for at, band in enumerate(tile.band for tile in tiles if tile.band is not None)
    )
    joiner = BandJoiner(2)
    for at, (tile, result) in enumerate(zip(tiles, results, strict=True)):
        shown = joiner.join(tile, result)
        joiner.keep(tile, shown)
        assert tile.band is not None
        first, last = tile.band.shown
        above = 2 * (tile.band.made[0] - first)
        assert shown.shape == (2 * (last - first), 120, 3)
        assert (shown[:above] == at - 1).all()
        assert (shown[above:] == at).all()
        assert above == (16 if at else 0)


def test_the_rows_of_one_column_are_not_joined_to_another() -> None:
    tiles = make_tiling(BandBoxEngine(window_px=50).info, 7, 50).plan(120, 160)
    assert len({tile.column for tile in tiles}) > 1
    joiner = BandJoiner(1)
    for tile in tiles:
        assert tile.band is not None
        rows = tile.band.made[1] - tile.band.made[0]
        result = np.full((rows, tile.window.width, 3), tile.column, np.uint8)
        shown = joiner.join(tile, result)
        joiner.keep(tile, shown)
        assert (shown == tile.column).all()


@dataclass
class Filling(BandBoxEngine):
    """Has no memory for its third band."""

    is_full: bool = False

    def filter(self, window: Window) -> Window:
        if len(self.bands) == 3 and not self.is_full:
            self.is_full = True
            raise EngineOutOfMemory("third band")
        return super().filter(window)


@pytest.mark.parametrize(("window_px", "is_in_bands_again"), [(100, True), (50, False)])
def test_an_image_out_of_memory_at_its_third_band_starts_again_in_smaller_windows(
    window_px: int, is_in_bands_again: bool
) -> None:
    """In lower bands, or by themselves where windows are too small for any bands."""
    engine, rgb = Filling(window_px=window_px), noise(300, 60)
    with stream_of(engine) as stream:
        progress = list(upscale_by_tiles(Image(rgb), 2, stream))

    assert progress[-1].result is not None
    assert np.array_equal(progress[-1].result.rgb, untiled(rgb, BoxEngine()))
    before, again = (at for at, tiles_done in enumerate(progress) if tiles_done.done == 0)
    assert before == 0 < again <= 3
    assert progress[again].total > progress[0].total
    assert [each.done for each in progress[again:]] == list(range(progress[-1].total + 1))
    assert (len(engine.columns) > 1) == is_in_bands_again
    assert (engine.seen == []) == is_in_bands_again


def test_an_image_of_16_bits_is_not_cut_into_bands() -> None:
    engine = BandTrueEngine(window_px=WINDOW_PX)
    rgb: Pixels = noise(150, 60).astype(np.uint16) * 257

    result = upscale_through(Image(rgb), 2, engine)

    assert np.array_equal(result.rgb, engine.filter(rgb))
    assert engine.bands == []
    assert engine.columns == []


def test_a_tempered_image_is_not_cut_into_bands() -> None:
    vivid, faithful = BandTrueEngine(window_px=60), BandTrueEngine(window_px=60, halo_px=0)
    steps = PostProcessing(tempering=Tempering(8, 0.5))
    with (
        Scheduler() as scheduler,
        scheduler.open_stream(vivid) as stream,
        scheduler.open_stream(faithful, beside=stream) as beside,
    ):
        finish(upscale_by_tiles(Image(noise(150, 90)), 2, stream, steps, beside))
    assert vivid.bands == faithful.bands == []
    assert len(vivid.seen) == len(faithful.seen) > 1


def test_a_cancelled_image_stops_and_its_column_is_dropped() -> None:
    engine = BandBoxEngine(window_px=WINDOW_PX)
    with Scheduler() as scheduler:
        with pytest.raises(Cancelled):
            cancel_after(2, scheduler, engine)
        assert 2 <= len(engine.bands) <= 2 + BATCHES_AHEAD + 1
        until_s = time.monotonic() + 5  # one more band may be on the device
        while engine.columns[0]() is not None and time.monotonic() < until_s:
            time.sleep(0.005)
        assert [column() for column in engine.columns] == [None]


def cancel_after(done: int, scheduler: Scheduler, engine: BandBoxEngine) -> None:
    """Cancel an image after some bands."""
    with scheduler.open_stream(engine) as stream:
        for tiles_done in upscale_by_tiles(Image(noise(400, 60)), 2, stream):
            if tiles_done.done == done:
                stream.cancel()


def test_the_column_of_a_finished_image_is_dropped() -> None:
    engine = BandBoxEngine(window_px=WINDOW_PX)
    with stream_of(engine) as stream:
        finish(upscale_by_tiles(Image(noise(200, 300)), 2, stream))
        assert len(engine.columns) > 1
        assert [column() for column in engine.columns] == [None] * len(engine.columns)


def test_progress_counts_bands_and_a_full_image_is_computed_whole() -> None:
    engine = BandBoxEngine(window_px=WINDOW_PX)
    progress = list(progress_of(noise(200, 60), 2, engine))
    total = len(engine.bands)
    assert total > 5
    assert [(each.done, each.total) for each in progress] == [
        (done, total) for done in range(total + 1)
    ]
    assert {each.computed_share for each in progress} == {1.0}


def progress_of(rgb: Pixels, scale: int, engine: BandBoxEngine) -> Iterator[TilesDone]:
    with stream_of(engine) as stream:
        yield from upscale_by_tiles(Image(rgb), scale, stream)


@pytest.mark.usefixtures("cheap_windows")
def test_the_share_of_an_image_with_flat_surroundings_is_that_of_its_bands() -> None:
    rgb = np.full((300, 130, 3), 255, np.uint8)
    rgb[40:260, 20:80] = noise(220, 60)
    engine = BandLayeredEngine(radius_px=3, window_px=60, shape_step_px=8)
    *_, last = progress_of(rgb, 2, engine)
    assert last.result is not None
    assert np.array_equal(last.result.rgb, engine.filter(rgb))
    tiling = make_tiling(engine.info, 3, 60, needs_flat_halo=False)
    assert last.computed_share == engine.computed_px / tiling.count_px(300, 130) < 0.7
    assert len(engine.bands) > 3


def test_no_more_bands_are_in_flight_than_a_few() -> None:
    engine = BandBoxEngine(window_px=WINDOW_PX, batch=4)
    with stream_of(engine) as stream:
        ahead = [
            len(engine.bands) - tiles_done.done
            for tiles_done in upscale_by_tiles(Image(noise(400, 60)), 2, stream)
        ]
    assert len(engine.bands) > 10
    assert max(ahead) <= BATCHES_AHEAD * 4


def test_bands_that_were_planned_for_another_engine_are_refused() -> None:
    tiles = make_tiling(BandBoxEngine(window_px=50).info, 7, 50).plan(120, 60)
    with pytest.raises(TypeError, match="box computes no bands"):
        next(open_bands(noise(120, 60), tiles, BoxEngine()))


def test_an_engine_that_prefers_whole_windows_gets_them() -> None:
    class Waiting(BandBoxEngine):
        def prefers_bands(self, px: int) -> bool:
            return px > 130 * 60

    engine = Waiting(window_px=WINDOW_PX)
    for height in (130, 131):
        upscale_through(Image(noise(height, 60)), 2, engine)
        assert (len(engine.bands) > 0) == (height > 130)
