import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.upscale.box_engine import BoxEngine, average_down, stream_of
from upscaled.errors import InternalError
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.cancellation import Cancelled
from upscaled.upscale.loop import Pass, plan_passes
from upscaled.upscale.loop import upscale as upscale_in_stream
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.stream import BATCHES_AHEAD
from upscaled.upscale.tiles import pad
from upscaled_models.backends.base import Window, least_window_px, round_up
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.registry import makes_every_scale


def ignore(done: int, total: int) -> None:
    """Ignore progress."""


def upscale(image: Image, scale: int, engine: BoxEngine, **options: Any) -> Image:
    with stream_of(engine) as stream:
        return upscale_in_stream(image, scale, stream, **options)


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


@pytest.mark.parametrize("cases", [50, pytest.param(300, marks=pytest.mark.slow)])
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
        )
        rgb = noise(chance.randint(1, 130), chance.randint(1, 130), seed=case)

        result = upscale(Image(rgb), engine.native_scale, engine, on_tile=ignore)

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
            result = upscale(Image(rgb), 2, engine, on_tile=ignore)
            assert np.array_equal(result.rgb, untiled(rgb, engine)), (height, width)


def test_a_halo_one_pixel_short_of_the_radius_always_shows() -> None:
    """The proof that the tests above can fail."""
    chance = random.Random(3)
    for case in range(100):
        radius = chance.randint(1, 9)
        engine = BoxEngine(radius_px=radius, halo_px=radius - 1, window_px=2 * radius + 12)
        rgb = noise(chance.randint(50, 130), chance.randint(50, 130), seed=case)

        result = upscale(Image(rgb), 2, engine, on_tile=ignore)

        assert not np.array_equal(result.rgb, untiled(rgb, engine)), (case, radius, rgb.shape)


def test_windows_off_the_networks_multiple_show() -> None:
    """The proof that `multiple_px` matters to the fake, so that the tests above test it."""
    engine = BoxEngine(multiple_px=4, fold=4, window_px=32)
    off = replace(engine, multiple_px=1)
    rgb = noise(90, 90)

    assert not np.array_equal(upscale(Image(rgb), 2, off, on_tile=ignore).rgb, untiled(rgb, engine))


def test_scale_2_through_a_x4_network_is_its_result_averaged() -> None:
    engine = BoxEngine(native_scale=4)
    rgb = noise(70, 45)

    result = upscale(Image(rgb), 2, engine, on_tile=ignore)

    assert np.array_equal(result.rgb, average_down(untiled(rgb, engine), 2))


def test_scale_4_through_a_x2_network_runs_it_twice() -> None:
    engine = BoxEngine(native_scale=2)
    rgb = noise(40, 50)

    result = upscale(Image(rgb), 4, engine, on_tile=ignore)

    assert np.array_equal(result.rgb, untiled(untiled(rgb, engine), engine))


@pytest.mark.parametrize(
    ("scale", "native", "passes"),
    [
        (2, 2, (Pass(2, 1),)),
        (4, 4, (Pass(4, 1),)),
        (2, 4, (Pass(2, 2),)),
        (4, 2, (Pass(2, 1), Pass(2, 1))),
        (1, 2, (Pass(1, 2),)),
        (4, 8, (Pass(4, 2),)),
        (8, 4, (Pass(4, 1), Pass(2, 2))),
        (1, 1, (Pass(1, 1),)),
    ],
)
def test_any_scale_goes_through_any_network(
    scale: int, native: int, passes: tuple[Pass, ...]
) -> None:
    assert plan_passes(scale, native) == passes


@pytest.mark.parametrize(("scale", "native"), [(2, 3), (3, 2), (2, 1), (4, 1)])
def test_a_scale_no_number_of_passes_makes_is_refused(scale: int, native: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        plan_passes(scale, native)


def test_progress_is_reported_before_the_first_tile_and_after_each() -> None:
    engine = BoxEngine(window_px=32)
    reported: list[tuple[int, int]] = []

    upscale(Image(noise(64, 64)), 4, engine, on_tile=lambda *step: reported.append(step))

    total = len(engine.seen)
    assert reported == [(done, total) for done in range(total + 1)]


def test_leaving_the_loop_leaves_the_other_windows_uncomputed() -> None:
    engine = BoxEngine(window_px=32)

    def leave_after_two(done: int, total: int) -> None:
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        upscale(Image(noise(200, 200)), 2, engine, on_tile=leave_after_two)
    assert 2 <= len(engine.seen) <= 2 + BATCHES_AHEAD


@pytest.mark.parametrize("batch", [1, 4])
def test_no_more_windows_are_under_way_than_a_few_batches(batch: int) -> None:
    """Memory: windows are made when asked for, never as a list."""
    engine = BoxEngine(window_px=32, batch=batch)
    ahead: list[int] = []

    upscale(
        Image(noise(300, 300)),
        2,
        engine,
        on_tile=lambda done, _: ahead.append(len(engine.seen) - done),
    )

    assert len(engine.seen) > 100
    assert max(ahead) <= BATCHES_AHEAD * batch


def test_without_room_the_image_is_computed_again_in_smaller_windows() -> None:
    engine = BoxEngine(window_px=100, room_px=30)
    rgb = noise(150, 90)

    result = upscale(Image(rgb), 2, engine, on_tile=ignore)

    assert np.array_equal(result.rgb, untiled(rgb, replace(engine, room_px=10**6)))
    assert max(engine.seen[-1]) <= 30


def test_without_memory_for_the_smallest_window_the_error_is_raised() -> None:
    engine = BoxEngine(window_px=100, halo_px=3, room_px=6)

    with pytest.raises(EngineOutOfMemory):
        upscale(Image(noise(150, 90)), 2, engine, on_tile=ignore)
    assert engine.seen[-1] == (7, 7)


def test_rows_are_reported_as_soon_as_they_are_final() -> None:
    engine = BoxEngine(window_px=32)
    reported: list[tuple[Image, int, Pixels]] = []

    def keep(image: Image, rows_ready: int) -> None:
        reported.append((image, rows_ready, image.rgb[:rows_ready].copy()))

    image = Image(noise(90, 70), alpha=noise(90, 70)[..., 0].copy(), icc=b"profile")
    result = upscale(image, 4, engine, on_tile=ignore, on_rows=keep)

    rows = [rows_ready for _, rows_ready, _ in reported]
    assert len(rows) > 3
    assert rows == sorted(set(rows))
    assert rows[-1] == 360
    for canvas, rows_ready, pixels in reported:
        assert canvas.icc == b"profile"
        assert canvas.alpha is not None
        assert canvas.alpha is result.alpha
        assert np.array_equal(pixels, result.rgb[:rows_ready])


def test_rows_begin_again_on_another_canvas_when_the_image_is_computed_again() -> None:
    reported: list[tuple[int, int]] = []

    class Shrinking(BoxEngine):
        def filter(self, window: Window) -> Window:
            if len(self.batches) == 8:
                self.room_px = 20
            return super().filter(window)

    result = upscale(
        Image(noise(90, 90)),
        2,
        Shrinking(window_px=40),
        on_tile=ignore,
        on_rows=lambda image, rows_ready: reported.append((id(image.rgb), rows_ready)),
    )

    assert len({canvas for canvas, _ in reported}) == 2
    assert reported[0][0] != id(result.rgb)
    assert reported[-1] == (id(result.rgb), 180)


def test_a_lock_sees_each_window_beside_its_result_and_its_reach_makes_no_seams() -> None:
    """A lock that adds what a further box filter of the source says, 5 px around."""
    wide = BoxEngine(radius_px=5)

    def lock(source: Window, result: Window) -> Window:
        locked: Window = result + wide.filter(source)
        return locked

    engine, rgb = BoxEngine(window_px=40), noise(120, 90)
    result = upscale(
        Image(rgb),
        2,
        engine,
        on_tile=ignore,
        post_processing=PostProcessing(correct=lock, correction_reach_px=5),
    )
    short = upscale(
        Image(rgb),
        2,
        engine,
        on_tile=ignore,
        post_processing=PostProcessing(correct=lock, correction_reach_px=1),
    )

    expected = untiled(rgb, engine) + wide.filter(rgb)
    assert np.array_equal(result.rgb, expected)
    assert not np.array_equal(short.rgb, expected)


def test_a_window_that_fails_its_check_is_computed_once_more_and_exactly() -> None:
    class WrongOnce(BoxEngine):
        def filter(self, window: Window) -> Window:
            result = super().filter(window)
            return result * 0 if len(self.batches) == 3 and not self.exact else result

    engine, rgb = WrongOnce(window_px=40), noise(120, 90)
    steps = PostProcessing(check=lambda source, result: bool(result.any()))

    result = upscale(Image(rgb), 2, engine, on_tile=ignore, post_processing=steps)

    assert len(engine.exact) == 1
    assert np.array_equal(result.rgb, untiled(rgb, BoxEngine()))


def test_a_window_that_fails_its_check_twice_fails_the_image() -> None:
    with pytest.raises(InternalError, match="box: a window fails its check"):
        upscale(
            Image(noise(120, 90)),
            2,
            BoxEngine(window_px=40),
            on_tile=ignore,
            post_processing=PostProcessing(check=lambda source, result: False),
        )


def test_the_profile_goes_along_and_the_size_is_exact() -> None:
    image = Image(noise(61, 67), alpha=noise(61, 67)[..., 0].copy(), icc=b"profile")

    result = upscale(image, 4, BoxEngine(), on_tile=ignore)

    assert result.icc == b"profile"
    assert result.rgb.shape == (244, 268, 3)
    assert result.alpha is not None
    assert result.alpha.shape == (244, 268)


def test_padding_mirrors_without_repeating_the_border() -> None:
    pixels = np.arange(4, dtype=np.uint8)[None, :, None].repeat(3, axis=2)

    assert pad(pixels, 1, 7)[0, :, 0].tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert pad(pixels, 1, 8)[0, :, 0].tolist() == [0, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("native_scale", range(1, 17))
def test_a_scale_is_accepted_exactly_where_passes_through_the_network_make_x2_and_x4(
    native_scale: int,
) -> None:
    def can_make(scale: int) -> bool:
        try:
            plan_passes(scale, native_scale)
        except ValueError:
            return False
        return True

    assert makes_every_scale(native_scale) == (can_make(2) and can_make(4))
