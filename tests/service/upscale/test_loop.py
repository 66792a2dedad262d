import random
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.upscale.box_engine import (
    BoxEngine,
    RowsReady,
    average_down,
    stream_of,
    upscale_through,
)
from upscaled.image.alpha import bleed_colour, upscale_alpha
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale import loop
from upscaled.upscale.loop import upscale_by_tiles
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.stream import BATCHES_AHEAD
from upscaled_models.backends.base import Window, least_window_px, round_up
from upscaled_models.errors import EngineOutOfMemory


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def untiled(rgb: Pixels, engine: BoxEngine) -> Pixels:
    """The whole image in one window, padded by numpy and cropped: no code of the loop."""
    height, width = rgb.shape[:2]
    missing = [-side % engine.multiple_px for side in (height, width)]
    for axis, count in enumerate(missing):
        mode = "reflect" if count < rgb.shape[axis] else "edge"
        widths = [(0, count if axis == at else 0) for at in range(3)]
        rgb = np.pad(rgb, widths, mode=mode)  # type: ignore[call-overload]
    scale = engine.native_scale
    return engine.filter(rgb)[: height * scale, : width * scale]


@pytest.mark.parametrize("cases", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_tiled_equals_untiled_exactly_on_random_sizes(cases: int) -> None:
    chance = random.Random(7)
    tile_counts = []
    for case in range(cases):
        radius, multiple = chance.randint(0, 9), chance.choice([1, 1, 2, 4])
        engine = BoxEngine(
            radius_px=radius,
            halo_px=radius,
            multiple_px=multiple,
            fold=multiple,
            native_scale=chance.choice([2, 4]),
            window_px=least_window_px(radius, multiple) + chance.randint(0, 40),
            shape_step_px=round_up(chance.choice([1, 8, 16]), multiple),
            batch=chance.choice([1, 3, 8]),
            takes_new_shapes=case % 2 == 1,
        )
        rgb = noise(chance.randint(1, 130), chance.randint(1, 130), seed=case)

        result = upscale_through(Image(rgb), engine.native_scale, engine)

        assert np.array_equal(result.rgb, untiled(rgb, engine)), (case, engine, rgb.shape)
        tile_counts.append(len(engine.seen))
    assert min(tile_counts) == 1
    assert max(tile_counts) > 50


@pytest.mark.parametrize("multiple", [1, 2, 4])
@pytest.mark.parametrize("window", [32, 40])
def test_tiled_equals_untiled_one_pixel_off_every_boundary(window: int, multiple: int) -> None:
    """Sides around one window, two windows with their overlap, three, and 64 x 64."""
    radius = 5
    step = window - 2 * radius
    sides = {1, 2, radius, 64}
    for boundary in (multiple, window, window + step, window + 2 * step, window - radius):
        sides |= {boundary - 1, boundary, boundary + 1}
    engine = BoxEngine(
        radius_px=radius, halo_px=radius, window_px=window, multiple_px=multiple, fold=multiple
    )
    for side in sorted(sides - {0}):
        for height, width in ((side, side), (side, 64), (37, side)):
            rgb = noise(height, width, seed=side)
            result = upscale_through(Image(rgb), 2, engine)
            assert np.array_equal(result.rgb, untiled(rgb, engine)), (height, width)


def test_the_lowest_windows_are_shorter_only_where_shapes_cost_nothing() -> None:
    rgb = noise(120, 32)
    for takes_new_shapes, heights in ((False, {32}), (True, {32, 16})):
        engine = BoxEngine(shape_step_px=4, takes_new_shapes=takes_new_shapes)
        upscale_through(Image(rgb), 2, engine)
        assert {height for height, _ in engine.seen} == heights


def test_a_halo_one_pixel_short_of_the_radius_always_changes_the_result() -> None:
    """The proof that the tests above can fail."""
    chance = random.Random(3)
    for case in range(30):
        radius = chance.randint(1, 9)
        engine = BoxEngine(radius_px=radius, halo_px=radius - 1, window_px=2 * radius + 12)
        rgb = noise(chance.randint(50, 130), chance.randint(50, 130), seed=case)

        result = upscale_through(Image(rgb), 2, engine)

        assert not np.array_equal(result.rgb, untiled(rgb, engine)), (case, radius, rgb.shape)


def test_windows_off_the_networks_multiple_change_the_result() -> None:
    """The proof that `multiple_px` matters to the fake, so that the tests above test it."""
    engine = BoxEngine(multiple_px=4, fold=4, window_px=32)
    off = replace(engine, multiple_px=1)
    rgb = noise(90, 90)

    assert not np.array_equal(upscale_through(Image(rgb), 2, off).rgb, untiled(rgb, engine))


def test_x2_through_an_x4_network_is_averaged_and_x4_through_an_x2_network_runs_it_twice() -> None:
    x4, x2, rgb = BoxEngine(native_scale=4), BoxEngine(native_scale=2), noise(40, 50)
    averaged = upscale_through(Image(rgb), 2, x4).rgb
    assert np.array_equal(averaged, average_down(untiled(rgb, x4), 2))
    twice = upscale_through(Image(rgb), 4, x2).rgb
    assert np.array_equal(twice, untiled(untiled(rgb, x2), x2))


def test_progress_is_reported_before_the_first_tile_and_after_each() -> None:
    engine = BoxEngine(window_px=32)
    with stream_of(engine) as stream:
        progress = list(upscale_by_tiles(Image(noise(64, 64)), 4, stream))
    total = len(engine.seen)
    assert [(tiles_done.done, tiles_done.total) for tiles_done in progress] == [
        (done, total) for done in range(total + 1)
    ]


def test_leaving_the_loop_leaves_the_other_windows_uncomputed() -> None:
    engine = BoxEngine(window_px=32)
    with stream_of(engine) as stream:
        for tiles_done in upscale_by_tiles(Image(noise(200, 200)), 2, stream):
            if tiles_done.done == 2:
                break
    assert 2 <= len(engine.seen) <= 2 + BATCHES_AHEAD


@pytest.mark.parametrize("batch", [1, 4])
def test_no_more_windows_are_in_flight_than_a_few_batches(batch: int) -> None:
    """Memory: windows are made one by one, never as a list."""
    engine = BoxEngine(window_px=32, batch=batch)
    with stream_of(engine) as stream:
        ahead = [
            len(engine.seen) - tiles_done.done
            for tiles_done in upscale_by_tiles(Image(noise(300, 300)), 2, stream)
        ]
    assert len(engine.seen) > 100
    assert max(ahead) <= BATCHES_AHEAD * batch


def test_an_image_out_of_memory_is_computed_again_in_smaller_windows() -> None:
    engine = BoxEngine(window_px=100, room_px=30)
    rgb = noise(150, 90)

    result = upscale_through(Image(rgb), 2, engine)

    assert np.array_equal(result.rgb, untiled(rgb, replace(engine, room_px=10**6)))
    assert max(engine.seen[-1]) <= 30


def test_without_memory_for_the_smallest_window_the_error_is_raised() -> None:
    engine = BoxEngine(window_px=100, halo_px=3, room_px=6)

    with pytest.raises(EngineOutOfMemory):
        upscale_through(Image(noise(150, 90)), 2, engine)
    assert engine.seen[-1] == (7, 7)


def test_rows_are_reported_as_soon_as_they_are_final() -> None:
    image = Image(noise(90, 70), alpha=noise(90, 70)[..., 0].copy(), icc=b"profile")
    with stream_of(BoxEngine(window_px=32)) as stream:
        rows = RowsReady(upscale_by_tiles(image, 4, stream))

    rows.assert_final()
    assert len(rows.counts) > 3
    assert {canvas.icc for canvas in rows.canvases} == {b"profile"}
    assert all(canvas.alpha is rows.canvases[-1].alpha is not None for canvas in rows.canvases)
    # Another object would be another result, which is encoded again from its first row.
    assert all(canvas is rows.canvases[-1] for canvas in rows.canvases)


def test_rows_begin_again_on_another_canvas_when_the_image_is_computed_again() -> None:
    class Shrinking(BoxEngine):
        def filter(self, window: Window) -> Window:
            if len(self.batches) == 8:
                self.room_px = 20
            return super().filter(window)

    with stream_of(Shrinking(window_px=40)) as stream:
        rows = RowsReady(upscale_by_tiles(Image(noise(90, 90)), 2, stream))

    assert len({id(canvas.rgb) for canvas in rows.canvases}) == 2
    assert rows.counts[-1] == 180


WIDE = BoxEngine(radius_px=5)


@dataclass(frozen=True)
class WideCorrection(PostProcessing):
    """Adds what a further box filter of the source says, 5 px around."""

    halo_px_of_step: int = 5

    def reach_px(self, gain: int) -> int:
        return self.halo_px_of_step

    def correct(self, source: Window, result: Window) -> Window:
        corrected: Window = result + WIDE.filter(source)
        return corrected


@pytest.mark.parametrize(("halo_px", "is_seamless"), [(5, True), (1, False)])
def test_a_step_is_given_each_window_with_its_result_and_its_reach_leaves_no_seams(
    halo_px: int, is_seamless: bool
) -> None:
    engine, rgb = BoxEngine(window_px=40), noise(120, 90)
    steps = WideCorrection(halo_px_of_step=halo_px)
    result = upscale_through(Image(rgb), 2, engine, steps=steps)
    expected = untiled(rgb, engine) + WIDE.filter(rgb)
    assert np.array_equal(result.rgb, expected) == is_seamless


class NotBlack(PostProcessing):
    """Accepts every result that is not black."""

    def is_plausible(self, source: Window, result: Window) -> bool:
        return bool(result.any())


def test_a_window_that_fails_its_check_is_computed_once_more_and_exactly() -> None:
    class WrongOnce(BoxEngine):
        def filter(self, window: Window) -> Window:
            result = super().filter(window)
            return result * 0 if len(self.batches) == 3 and not self.exact else result

    engine, rgb = WrongOnce(window_px=40), noise(120, 90)

    result = upscale_through(Image(rgb), 2, engine, steps=NotBlack(checks=True))

    assert len(engine.exact) == 1
    assert np.array_equal(result.rgb, untiled(rgb, BoxEngine()))


def test_the_profile_is_kept_and_the_size_is_exact() -> None:
    image = Image(noise(61, 67), alpha=noise(61, 67)[..., 0].copy(), icc=b"profile")

    result = upscale_through(image, 4, BoxEngine())

    assert result.icc == b"profile"
    assert result.rgb.shape == (244, 268, 3)
    assert result.alpha is not None
    assert result.alpha.shape == (244, 268)


def test_alpha_is_enlarged_while_the_network_has_the_first_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, windows_before = BoxEngine(window_px=64), []

    def note_windows(alpha: Pixels, scale: int, _threads: Executor | None) -> Pixels:
        deadline_s = time.monotonic() + 20
        while not engine.seen and time.monotonic() < deadline_s:
            time.sleep(0.001)
        windows_before.append(len(engine.seen))
        return np.repeat(np.repeat(alpha, scale, 0), scale, 1)

    monkeypatch.setattr(loop, "upscale_alpha", note_windows)
    alpha = np.full((40, 40), 200, np.uint8)

    result = upscale_through(Image(noise(40, 40), alpha), engine.native_scale, engine)

    assert windows_before == [1]
    assert result.alpha is not None
    assert result.alpha.shape == result.rgb.shape[:2]


def test_the_search_for_colours_under_alpha_has_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps_taken, used = list[str](), list[object]()

    def enlarge(alpha: Pixels, scale: int, threads: Executor | None) -> Pixels:
        steps_taken.append("enlarge")
        used.append(threads)
        return upscale_alpha(alpha, scale, threads)

    def bleed(rgb: Pixels, alpha: Pixels, threads: Executor | None) -> Pixels:
        bled = bleed_colour(rgb, alpha, threads)
        steps_taken.append("bleed")
        used.append(threads)
        return bled

    monkeypatch.setattr(loop, "upscale_alpha", enlarge)
    monkeypatch.setattr(loop, "bleed_colour", bleed)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:, 10:] = 255

    with ThreadPoolExecutor(2) as threads:
        upscale_through(
            Image(noise(40, 40), alpha),
            2,
            BoxEngine(window_px=64),
            steps=PostProcessing(threads=threads),
        )

    assert steps_taken == ["bleed", "enlarge"]
    assert used == [threads, threads]
