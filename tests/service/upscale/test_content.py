"""Flat and transparent areas: which cells a network must see, and in which windows."""

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.specs import spec_of
from tests.service.opened import open_engine
from tests.service.upscale.box_engine import (
    BoxEngine,
    RowsReady,
    average_down,
    stream_of,
    upscale_through,
)
from tests.service.upscale.true_engine import TrueEngine
from upscaled.config import Settings
from upscaled.image.alpha import bleed_colour, upscale_alpha
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.content import CELL_PX, Canvas, Content, choose_part_step_px
from upscaled.upscale.loop import upscale_by_tiles
from upscaled.upscale.post_process.colour_correction import CORRECTION_REACH_PX
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.region import Region
from upscaled.upscale.result import Timings
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import COMPILED_WINDOW_PRICE_PX, READY_WINDOW_PRICE_PX, Tiling
from upscaled_models.backends.base import EngineInfo, Window, least_window_px
from upscaled_models.backends.torch.engine import TorchEngine


@dataclass
class EdgeEngine(TrueEngine):
    """Repeats pixels, and adds what they differ by within `radius_px`: nothing where all is flat.

    keeps_colour: as its model's spec says.
    """

    keeps_colour: bool = True

    @property
    def info(self) -> EngineInfo:
        info = super(TrueEngine, self).info
        spec = replace(info.spec, radius_px=self.radius_px, keeps_colour=self.keeps_colour)
        return replace(info, spec=spec)

    def filter(self, window: Window) -> Window:
        around = np.ones((2 * self.radius_px + 1,) * 2, np.uint8)
        unlike = cv2.dilate(window, around) - cv2.erode(window, around)
        return super().filter(np.asarray(window + unlike // 3, window.dtype))


@dataclass
class LayeredEngine(EdgeEngine):
    """Convolves differences `radius_px - 1` times in whole numbers, with zeros around a window.

    As a network that keeps colours does in 8 bits: no pixel within its radius is without effect.
    """

    def filter(self, window: Window) -> Window:
        padded = np.pad(window, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(np.uint32)
        mixed = padded[1:, :-1] * 3 + padded[:-1, 1:] * 5 - padded[:-1, :-1] * 8
        kernel = np.array([[1, 5, 3], [7, 9, 11], [13, 2, 17]], np.uint32)
        for _ in range(self.radius_px - 1):
            around = np.pad(mixed, ((1, 1), (1, 1), (0, 0)))
            mixed = np.zeros_like(mixed)
            for row, column in np.ndindex(3, 3):
                shifted = around[row : row + len(mixed), column : column + mixed.shape[1]]
                mixed += kernel[row, column] * shifted
            mixed ^= mixed >> 7
        return TrueEngine.filter(self, np.asarray(window + (mixed >> 3), window.dtype))


def product_photo(height: int, width: int, seed: int) -> tuple[Pixels, NDArray[np.bool_]]:
    """Noisy things of several sizes on white; also where they are."""
    chance = random.Random(seed)
    rgb = np.full((height, width, 3), 255, np.uint8)
    is_thing = np.zeros((height, width), np.bool_)
    for _ in range(chance.randint(1, 4)):
        top, left = chance.randrange(height), chance.randrange(width)
        is_thing[top : top + chance.randint(1, 60), left : left + chance.randint(1, 60)] = True
    noise = np.random.default_rng(seed).integers(0, 256, rgb.shape, dtype=np.uint8)
    rgb[is_thing] = noise[is_thing]
    return rgb, is_thing


def random_tiling(chance: random.Random, *, needs_flat_halo: bool = True) -> Tiling:
    halo, multiple = chance.randint(0, 20), chance.choice([1, 2, 4])
    return Tiling(
        window_px=least_window_px(halo, multiple) + chance.randint(0, 90),
        halo_px=halo,
        multiple_px=multiple,
        shape_step_px=chance.choice([1, 16, 32]) if multiple == 1 else 16,
        part_step_px=chance.choice([1, 8, 16]),
        stretch=chance.choice([1, 2]),
        window_price_px=chance.choice([100, COMPILED_WINDOW_PRICE_PX]),
        needs_flat_halo=needs_flat_halo,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cell_is_flat_where_all_is_of_its_colour_as_far_as_its_result_depends_on(
    dtype: type[np.uint8 | np.uint16],
) -> None:
    for seed in range(20):
        reach = seed % 4 * CELL_PX
        rgb: Pixels = product_photo(70 + seed, 90, seed)[0].astype(dtype)
        content = Content.of(rgb, None, reach)
        for row, column in np.ndindex(content.cells.shape):
            top, left = row * CELL_PX, column * CELL_PX
            around = rgb[
                max(0, top - reach) : top + CELL_PX + reach,
                max(0, left - reach) : left + CELL_PX + reach,
            ].reshape(-1, 3)
            assert content.cells[row, column] == (around != around[0]).any(), (seed, row, column)


def test_one_level_of_noise_is_content() -> None:
    rgb = np.full((64, 64, 3), 255, np.uint8)
    rgb[::3, ::3, 1] = 254
    assert Content.of(rgb, None, 3).cells.all()


def test_one_odd_pixel_anywhere_makes_its_cell_content() -> None:
    """Also where the first pixel of every cell is of one colour."""
    for row, column in np.ndindex(CELL_PX, CELL_PX):
        rgb = np.full((5 * CELL_PX, 7 * CELL_PX, 3), 90, np.uint8)
        rgb[2 * CELL_PX + row, 3 * CELL_PX + column, 2] = 91
        cells = Content.of(rgb, None, 1).cells
        assert np.argwhere(cells).min(axis=0).tolist() == [1, 2]
        assert np.argwhere(cells).max(axis=0).tolist() == [3, 4]
        assert cells.sum() == 9


def test_without_a_reach_nothing_is_flat() -> None:
    assert Content.of(np.zeros((64, 64, 3), np.uint8), None, None).cells.all()


@pytest.mark.parametrize("scale", [2, 4])
def test_cells_without_content_are_transparent_in_the_result_and_few_others_have_content(
    scale: int,
) -> None:
    for seed in range(20):
        is_thing = product_photo(90, 70 + seed, seed)[1]
        alpha = np.where(is_thing, np.uint8(255), np.uint8(0))
        content = Content.of(np.zeros((*alpha.shape, 3), np.uint8), alpha, None)
        side = CELL_PX * scale
        is_empty = ~content.cells.repeat(side, axis=0).repeat(side, axis=1)
        large = upscale_alpha(alpha, scale)

        assert not large[is_empty[: large.shape[0], : large.shape[1]]].any()
        assert content.cells.sum() < 1.1 * is_thing.sum() / CELL_PX**2 + 300


@pytest.mark.parametrize("cases", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_tiles_hold_all_content_once_and_keep_their_halo(cases: int) -> None:
    chance = random.Random(2)
    saved = 0
    for seed in range(cases):
        height, width = chance.randint(1, 300), chance.randint(1, 300)
        tiling = random_tiling(chance)
        content = Content.of(product_photo(height, width, seed)[0], None, 2)
        tiles = content.plan(tiling)
        seen = np.zeros((height, width), np.int64)
        for tile in tiles:
            tile.core.read(seen)[:] += 1
            assert fits(tile, tiling, height, width), (seed, tile)
        cells = content.cells.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[:height, :width]
        assert seen.max(initial=0) <= 1
        assert (seen[cells] == 1).all(), seed
        assert tiles == tuple(sorted(tiles, key=lambda each: (each.core.top, each.core.left)))
        saved += count_px(tiles) < 0.8 * tiling.count_px(height, width)
    assert saved > cases / 4


def fits(tile: Tile, tiling: Tiling, height: int, width: int) -> bool:
    core, window, halo = tile.core, tile.window, tiling.halo_px
    return (
        window.height * window.width <= tiling.window_px**2
        and max(window.height, window.width) <= tiling.stretch * tiling.window_px
        and min(window.top, window.left) >= 0
        and window.bottom < height + tiling.multiple_px
        and window.right < width + tiling.multiple_px
        and not any(side % tiling.multiple_px for side in (window.top, window.left))
        and (core.top - window.top >= halo or window.top == 0)
        and (core.left - window.left >= halo or window.left == 0)
        and (window.bottom - core.bottom >= halo or window.bottom >= height)
        and (window.right - core.right >= halo or window.right >= width)
    )


@pytest.mark.parametrize("cases", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_windows_end_where_all_beyond_is_flat_and_keep_their_halo_elsewhere(cases: int) -> None:
    chance = random.Random(3)
    shorter = 0
    for seed in range(cases):
        height, width = chance.randint(1, 300), chance.randint(1, 300)
        tiling = random_tiling(chance, needs_flat_halo=False)
        content = Content.of(product_photo(height, width, seed)[0], None, tiling.halo_px)
        is_flat = content.is_flat.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[:height, :width]
        seen = np.zeros((height, width), np.int64)
        for tile in content.plan(tiling):
            core, window = tile.core, tile.window
            core.read(seen)[:] += 1
            for beside, distance in (
                (Region(core.top - 1, core.left, 1, core.width), core.top - window.top),
                (Region(core.bottom, core.left, 1, core.width), window.bottom - core.bottom),
                (Region(core.top, core.left - 1, core.height, 1), core.left - window.left),
                (Region(core.top, core.right, core.height, 1), window.right - core.right),
            ):
                inside = 0 <= beside.top < height and 0 <= beside.left < width
                is_free = not inside or bool(beside.read(is_flat).all())
                assert distance >= (0 if is_free else tiling.halo_px), (seed, tile, beside)
                shorter += inside and distance < tiling.halo_px
        cells = content.cells.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[:height, :width]
        assert seen.max(initial=0) <= 1
        assert (seen[cells] == 1).all(), seed
    assert shorter > cases / 4


@pytest.mark.parametrize("cases", [15, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", [2, 4])
def test_windows_that_end_in_flat_areas_give_the_pixels_of_the_whole_image(
    scale: int, cases: int
) -> None:
    """At scale 4 the network's result goes through it again, hidden pixels as they were."""
    few = 0
    for seed in range(cases):
        radius = seed % 7 + 2
        engine = LayeredEngine(
            radius_px=radius, halo_px=radius, window_px=4 * radius + 20 + seed, shape_step_px=8
        )
        image, seen = run_of(seed % 15, has_alpha=bool(seed % 2) and scale == 2)
        result = upscale_through(image, scale, engine)
        is_visible = np.ones(result.rgb.shape[:2], np.bool_)
        if result.alpha is not None:
            is_visible = result.alpha > 0
        untiled = engine.filter(seen) if scale == 2 else engine.filter(engine.filter(seen))
        differing = (result.rgb != untiled).any(axis=2) & is_visible
        assert not differing.any(), (seed, np.argwhere(differing)[:3])
        full_px = seen.shape[0] * seen.shape[1] * (1 if scale == 2 else 5)
        few += sum(h * w for h, w in engine.seen) < 0.6 * full_px
    assert few > 3


@pytest.mark.parametrize("has_alpha", [False, True])
def test_windows_twice_as_long_give_the_pixels_of_the_whole_image(has_alpha: bool) -> None:
    @dataclass
    class AnyShape(LayeredEngine):
        @property
        def info(self) -> EngineInfo:
            return replace(super(LayeredEngine, self).info, takes_new_shapes=True)

    longest = 0.0
    for seed in range(15):
        radius = seed % 3 + 1
        engine = AnyShape(radius_px=radius, halo_px=radius, window_px=4 * 16 + seed)
        image, seen = run_of(seed, has_alpha=has_alpha)
        result = upscale_through(image, 2, engine)
        is_visible = np.ones(result.rgb.shape[:2], np.bool_)
        if result.alpha is not None:
            is_visible = result.alpha > 0
        assert np.array_equal(result.rgb[is_visible], engine.filter(seen)[is_visible]), seed
        longest = max(longest, *(max(sides) / engine.window_px for sides in engine.seen))
        assert all(math.prod(sides) <= engine.window_px**2 for sides in engine.seen)
    assert 1 < longest <= 2


def test_windows_of_a_network_that_keeps_colours_end_in_flat_areas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def computed_px() -> int:
        engine = EdgeEngine(radius_px=9, halo_px=9, window_px=90, shape_step_px=8)
        upscale_through(run_of(8, has_alpha=False)[0], 2, engine)
        return sum(height * width for height, width in engine.seen)

    ending = computed_px()
    monkeypatch.setattr("upscaled.upscale.loop._TileLoop._needs_flat_halo", True)
    assert ending < 0.9 * computed_px()


def test_flat_areas_keep_the_margin_of_two_passes_where_the_network_runs_twice() -> None:
    rgb = product_photo(80, 150, 1)[0]
    once = Content.of(rgb, None, 9)
    again = once.enlarged(2, 2 * CELL_PX * 2)
    assert np.array_equal(again.is_flat, ~again.cells)
    assert 0 < again.is_flat.sum() < once.is_flat.sum()


@pytest.mark.parametrize(
    ("keeps_colour", "steps", "needs_halo"),
    [
        (True, PostProcessing(), False),
        (True, PostProcessing(corrects_patterns=True), False),
        (False, PostProcessing(), True),
        (True, PostProcessing(corrects_colours=True), True),
    ],
)
def test_windows_end_in_flat_areas_where_neither_network_nor_steps_see_beyond(
    monkeypatch: pytest.MonkeyPatch, keeps_colour: bool, steps: PostProcessing, needs_halo: bool
) -> None:
    halos: list[bool] = []

    def note(content: Content, tiling: Tiling) -> tuple[Tile, ...]:
        halos.append(tiling.needs_flat_halo)
        return plan_all(content, tiling)

    monkeypatch.setattr(Content, "plan", note)
    upscale_through(
        Image(run_of(1, has_alpha=False)[1]),
        2,
        EdgeEngine(keeps_colour=keeps_colour, window_px=60),
        steps=steps,
    )
    assert halos == [needs_halo]


def test_a_full_image_has_the_windows_that_it_would_have_anyway() -> None:
    tiling = Tiling(window_px=512, halo_px=19, multiple_px=1, shape_step_px=32)
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    assert Content.of(noise, None, 19).plan(tiling) == tiling.plan(700, 900)


@pytest.mark.parametrize(("halo_px", "step_px", "share"), [(19, 128, 0.5), (62, 32, 0.52)])
def test_content_in_two_fifths_of_an_image_needs_about_half_of_its_windows_in_few_shapes(
    halo_px: int, step_px: int, share: float
) -> None:
    rgb = np.full((1500, 1500, 3), 255, np.uint8)
    side = round(1500 * 0.4**0.5)
    rgb[250 : 250 + side, 300 : 300 + side] = 7
    rgb[250 : 250 + side : 2, 300 : 300 + side] = 90
    tiling = Tiling(
        window_px=512, halo_px=halo_px, multiple_px=1, shape_step_px=32, part_step_px=step_px
    )

    tiles = Content.of(rgb, None, min(halo_px, 19)).plan(tiling)

    assert count_px(tiles) <= share * tiling.count_px(1500, 1500)
    assert len({(tile.window.height, tile.window.width) for tile in tiles}) <= 4


@pytest.mark.parametrize("is_tall", [False, True])
@pytest.mark.parametrize(
    ("step_px", "needs_flat_halo", "share"),
    [(128, True, 0.55), (128, False, 0.51), (32, False, 0.49)],
)
def test_an_ellipse_in_two_fifths_of_an_image_needs_little_more_than_half_of_its_windows(
    is_tall: bool, step_px: int, needs_flat_halo: bool, share: float
) -> None:
    tiling = Tiling(
        window_px=512,
        halo_px=19,
        multiple_px=1,
        shape_step_px=32,
        part_step_px=step_px,
        needs_flat_halo=needs_flat_halo,
    )

    tiles = Content.of(draw_ellipse(is_tall=is_tall), None, 19).plan(tiling)

    assert count_px(tiles) <= share * tiling.count_px(1500, 1500)
    assert len({(tile.window.height, tile.window.width) for tile in tiles}) <= 4


def test_windows_of_any_shape_take_less_for_an_ellipse_or_lines_than_squares() -> None:
    """They may be twice as long as `window_px`, with no more pixels."""
    lines = np.full((1500, 1500, 3), 255, np.uint8)
    for top in range(100, 1400, 250):
        lines[top : top + 90 : 2, 100:1300] = 0
    squares = Tiling(
        window_px=512, halo_px=19, multiple_px=1, part_step_px=8, needs_flat_halo=False
    )
    any_shape = replace(squares, stretch=2, window_price_px=READY_WINDOW_PRICE_PX)
    for rgb, most in ((draw_ellipse(is_tall=True), 0.99), (lines, 0.98)):
        content = Content.of(rgb, None, 19)
        tiles = content.plan(any_shape)
        assert count_px(tiles) < most * count_px(content.plan(squares))
        assert max(tile.window.width for tile in tiles) > 512
        assert all(fits(tile, replace(any_shape, halo_px=0), 1500, 1500) for tile in tiles)


def draw_ellipse(*, is_tall: bool) -> Pixels:
    """A striped ellipse over two fifths of a white square of 1500 px."""
    down, across = np.ogrid[-750:750, -750:750]
    half = 750 * (1.6 / np.pi / 1.3) ** 0.5
    is_thing = (down / 1.3) ** 2 + across**2 < half**2
    rgb = np.where(is_thing[..., None], np.arange(1500)[:, None, None] % 200, 255)
    rgb = np.ascontiguousarray(np.broadcast_to(rgb, (1500, 1500, 3)).astype(np.uint8))
    return rgb if is_tall else rgb.transpose(1, 0, 2).copy()


def run_of(seed: int, *, has_alpha: bool) -> tuple[Image, Pixels]:
    """A product photo, and its pixels as a network sees them."""
    rgb, is_thing = product_photo(60 + 7 * seed, 150, seed)
    alpha = np.where(is_thing, np.uint8(255), np.uint8(0)) if has_alpha else None
    return Image(rgb, alpha), rgb if alpha is None else bleed_colour(rgb, alpha)


@pytest.mark.parametrize("has_alpha", [False, True])
def test_tiled_equals_untiled_exactly(has_alpha: bool) -> None:
    few = 0
    for seed in range(15):
        engine = EdgeEngine(radius_px=4, halo_px=4, window_px=40 + seed, shape_step_px=8)
        image, seen = run_of(seed, has_alpha=has_alpha)

        result = upscale_through(image, 2, engine)

        untiled = engine.filter(seen)
        is_visible = np.ones(result.rgb.shape[:2], np.bool_)
        if result.alpha is not None:
            is_visible = result.alpha > 0
        assert np.array_equal(result.rgb[is_visible], untiled[is_visible]), seed
        one_window = upscale_through(image, 2, replace(engine, window_px=1000, seen=[]))
        assert np.array_equal(result.rgb, one_window.rgb), seed
        few += sum(h * w for h, w in engine.seen) < 0.7 * seen.shape[0] * seen.shape[1]
    assert few > 3


def test_a_halo_one_pixel_short_changes_the_result() -> None:
    differing = 0
    for seed in range(15):
        engine = EdgeEngine(radius_px=4, halo_px=3, window_px=40, shape_step_px=8)
        image, seen = run_of(seed, has_alpha=False)
        differing += not np.array_equal(upscale_through(image, 2, engine).rgb, engine.filter(seen))
    assert differing > 3


def test_a_reach_below_the_networks_radius_changes_the_result() -> None:
    """The proof that the network's radius counts, so that the tests above test it."""
    engine = EdgeEngine(radius_px=9, halo_px=9, window_px=60, shape_step_px=8)

    @dataclass(frozen=True, slots=True)
    class Short(PostProcessing):
        def flat_reach_px(self, *_: Any) -> int:
            return CELL_PX

    differing = 0
    for seed in range(8):
        image, seen = run_of(seed, has_alpha=False)
        result = upscale_through(image, 2, engine, steps=Short())
        differing += not np.array_equal(result.rgb, engine.filter(seen))
    assert differing > 3


def test_colour_correction_makes_flat_areas_of_other_networks_flat_as_it_would_anyway() -> None:
    engine = EdgeEngine(
        radius_px=4,
        halo_px=4,
        window_px=40,
        keeps_colour=False,
        fault=lambda result: result - np.minimum(result, 3),
    )
    steps = PostProcessing(corrects_colours=True)
    assert steps.flat_reach_px(engine.info.spec, None) == CORRECTION_REACH_PX
    for seed in range(8):
        image, seen = run_of(seed, has_alpha=False)
        result = upscale_through(image, 2, engine, steps=steps)
        spoilt = engine.fault(engine.filter(seen))
        assert np.array_equal(result.rgb, steps.correct(seen, spoilt)), seed


def test_running_the_network_twice_in_tiles_equals_running_it_on_the_whole_image() -> None:
    for seed in range(8):
        engine = EdgeEngine(radius_px=2, halo_px=2, window_px=60, shape_step_px=8)
        image, seen = run_of(seed, has_alpha=False)
        result = upscale_through(image, 4, engine)
        assert np.array_equal(result.rgb, engine.filter(engine.filter(seen))), seed


def test_an_averaged_result_is_as_if_it_were_whole() -> None:
    engine = EdgeEngine(radius_px=2, halo_px=2, window_px=60, native_scale=4)
    image, seen = run_of(2, has_alpha=False)
    assert np.array_equal(
        upscale_through(image, 2, engine).rgb, average_down(engine.filter(seen), 2)
    )


def cut_out_of_scan_lines(seed: int) -> tuple[Pixels, NDArray[np.uint8]]:
    """A thing of fine lines, whose mean colour networks change, and its alpha."""
    is_thing = product_photo(80, 150, seed)[1]
    rgb = np.zeros((*is_thing.shape, 3), np.uint8)
    rgb[::2] = 200
    return rgb, np.where(is_thing, np.uint8(255), np.uint8(0))


def shifting() -> EdgeEngine:
    """A network that makes fine patterns darker, and grey ones green."""
    share = np.array([4, 5, 4], np.uint8)
    return EdgeEngine(
        radius_px=4, halo_px=4, window_px=50, fault=lambda result: result - result // share
    )


@pytest.mark.parametrize("scale", [2, 4])
def test_no_visible_pixel_depends_on_what_alpha_hides_or_on_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    steps = PostProcessing(corrects_patterns=True)
    corrected = 0
    for seed in range(6):
        rgb, alpha = cut_out_of_scan_lines(seed)
        result = upscale_through(Image(rgb, alpha), scale, shifting(), steps=steps)
        assert result.alpha is not None
        is_visible = result.alpha > 0
        uncorrected = upscale_through(Image(rgb, alpha), scale, shifting())
        corrected += not np.array_equal(result.rgb[is_visible], uncorrected.rgb[is_visible])

        other = rgb.copy()
        noise = np.random.default_rng(seed).integers(0, 256, rgb.shape, dtype=np.uint8)
        other[alpha == 0] = noise[alpha == 0]
        over_noise = upscale_through(Image(other, alpha), scale, shifting(), steps=steps)
        assert np.array_equal(result.rgb[is_visible], over_noise.rgb[is_visible]), seed

        with monkeypatch.context() as patch:
            patch.setattr(Content, "plan", plan_all)
            everything = upscale_through(Image(rgb, alpha), scale, shifting(), steps=steps)
        assert np.array_equal(result.rgb, everything.rgb), seed
    assert corrected > 3


def plan_all(content: Content, tiling: Tiling) -> tuple[Tile, ...]:
    return tiling.plan(content.height_px, content.width_px)


@pytest.mark.parametrize("alpha", [None, 0])
def test_an_image_of_one_colour_or_without_a_visible_pixel_needs_no_network(
    alpha: int | None,
) -> None:
    rgb = np.full((90, 80, 3), (255, 250, 3), np.uint8)
    if alpha is not None:
        rgb[::2] = 7
    plane = None if alpha is None else np.full((90, 80), alpha, np.uint8)
    engine = EdgeEngine(window_px=40)
    with stream_of(engine) as stream:
        progress = list(upscale_by_tiles(Image(rgb, plane), 2, stream, PostProcessing(checks=True)))

    assert not engine.seen
    assert [(tiles_done.done, tiles_done.total) for tiles_done in progress] == [(0, 1), (1, 1)]
    result = progress[-1].result
    assert result is not None
    assert progress[-1].rows_ready == 180
    assert np.array_equal(result.rgb, rgb.repeat(2, axis=0).repeat(2, axis=1))


def test_progress_counts_the_windows_that_are_computed() -> None:
    engine = EdgeEngine(window_px=40, shape_step_px=8)
    with stream_of(engine) as stream:
        progress = list(upscale_by_tiles(run_of(5, has_alpha=False)[0], 2, stream))
    total = len(engine.seen)
    assert [(tiles_done.done, tiles_done.total) for tiles_done in progress] == [
        (done, total) for done in range(total + 1)
    ]
    assert progress[-1].computed_share < 1
    tiling = Tiling(window_px=40, halo_px=3, multiple_px=1, shape_step_px=8)
    computed = sum(height * width for height, width in engine.seen)
    assert progress[-1].computed_share == computed / tiling.count_px(95, 150)


def test_the_work_of_an_image_without_empty_parts_is_estimated_of_one_that_has_some() -> None:
    timings = Timings(decode_s=1, network_s=9, encode_s=2, device_s=3, computed_share=0.25)
    assert timings.full_work_s == 1 + 12 + 2
    assert replace(timings, computed_share=0, device_s=0).full_work_s is None


@pytest.mark.parametrize("has_alpha", [False, True])
def test_rows_are_final_when_they_are_reported(has_alpha: bool) -> None:
    for seed in range(6):
        engine = EdgeEngine(window_px=32, shape_step_px=8)
        with stream_of(engine) as stream:
            image = run_of(seed, has_alpha=has_alpha)[0]
            steps = PostProcessing(corrects_patterns=True)
            RowsReady(upscale_by_tiles(image, 2, stream, steps)).assert_final()


@pytest.mark.parametrize(("name", "scale"), [("upscaled-x2", 2), ("upscaled-x4-faithful", 4)])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_shipped_models_give_the_pixels_of_one_window_over_the_whole_picture(
    tmp_path: Path, name: str, scale: int, has_alpha: bool
) -> None:
    settings = Settings(
        device="cpu", precision="exact", threads=1, data_dir=tmp_path, model_x2=name, model_x4=name
    )
    engine = open_engine(settings, scale)
    assert isinstance(engine, TorchEngine)
    rgb = np.full((180, 260, 3), (255, 255, 254), np.uint8)
    rgb[60:110, 90:150] = np.random.default_rng(1).integers(0, 256, (50, 60, 3))
    cv2.circle(rgb, (180, 90), 25, (20, 90, 200), -1, cv2.LINE_AA)
    alpha = np.where((rgb != (255, 255, 254)).any(axis=2), 255, 0).astype(np.uint8)
    seen = bleed_colour(rgb, alpha) if has_alpha else rgb

    with stream_of(replace(engine, info=replace(engine.info, window_px=128))) as stream:
        progress = list(upscale_by_tiles(Image(rgb, alpha if has_alpha else None), scale, stream))
    (untiled,) = engine.start([seen]).finish()

    result = progress[-1].result
    assert result is not None
    assert (
        0
        < progress[-1].total
        < len(Tiling(window_px=128, halo_px=19, multiple_px=1).plan(180, 260))
    )
    is_visible = result.alpha > 0 if result.alpha is not None else np.s_[:]
    assert np.array_equal(result.rgb[is_visible], untiled[is_visible])


def test_the_faithful_network_decides_what_is_flat_in_a_tempered_image() -> None:
    steps, vivid = PostProcessing(corrects_colours=True), spec_of(radius_px=349)
    assert steps.flat_reach_px(vivid, spec_of(keeps_colour=True, radius_px=19)) == 19
    assert steps.flat_reach_px(vivid, spec_of(keeps_colour=False, radius_px=19)) is None
    assert PostProcessing().flat_reach_px(vivid, None) is None


def test_an_engine_that_fits_less_computes_smaller_windows_of_the_same_result() -> None:
    image, seen = run_of(4, has_alpha=False)
    engine = EdgeEngine(radius_px=3, window_px=200, room_px=48)
    assert np.array_equal(upscale_through(image, 2, engine).rgb, engine.filter(seen))


def test_small_networks_get_parts_in_fewer_shapes_unless_new_ones_cost_nothing() -> None:
    small, large = BoxEngine(shape_step_px=32).info, BoxEngine(shape_step_px=32).info
    large = replace(large, spec=replace(large.spec, size_bytes=4_000_000))
    assert choose_part_step_px(small, 512) == 128
    assert choose_part_step_px(small, 500) == 128, "a multiple of the step of all shapes"
    assert choose_part_step_px(replace(small, takes_new_shapes=True), 512) == 8
    assert choose_part_step_px(large, 512) == 32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_canvas_repeats_its_source_in_any_steps_and_keeps_what_windows_wrote(dtype: Any) -> None:
    source = np.random.default_rng(4).integers(1, 256, (37, 11, 3)).astype(dtype)
    repeated = source.repeat(4, axis=0).repeat(4, axis=1)
    canvas = Canvas(np.zeros_like(repeated), source)

    for rows in (5, 5, 3, 36):
        canvas.fill_rows(rows)
        canvas.pixels[4 * rows - 4 : 4 * rows, :9] = 0
    canvas.fill_rows(37)

    written = np.zeros(repeated.shape[:2], np.bool_)
    for rows in (5, 3, 36):
        written[4 * rows - 4 : 4 * rows, :9] = True
    assert np.array_equal(canvas.pixels, np.where(written[..., None], 0, repeated))


def test_a_canvas_is_filled_once_the_network_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = run_of(3, has_alpha=True)
    engine = EdgeEngine(radius_px=4, halo_px=4, window_px=40, shape_step_px=8)
    windows_before: list[int] = []
    fill_rows = Canvas.fill_rows

    def note_windows(canvas: Canvas, rows: int) -> None:
        windows_before.append(len(engine.seen))
        fill_rows(canvas, rows)

    monkeypatch.setattr(Canvas, "fill_rows", note_windows)

    upscale_through(image, 2, engine)

    assert len(engine.seen) > 1
    assert windows_before[0] > 0
