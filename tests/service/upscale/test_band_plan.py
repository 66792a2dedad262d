"""Properties of plans of bands, on hundreds of sizes."""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np
import pytest

from tests.models.specs import spec_of
from tests.service.upscale.test_content import product_photo
from upscaled.image.output import MAX_OUTPUT_SIDE_PX
from upscaled.upscale.band_plan import BandRows, BandSizes
from upscaled.upscale.content import CELL_PX, Content
from upscaled.upscale.region import Region
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import READY_WINDOW_PRICE_PX, Tiling
from upscaled_models.backends.base import least_window_px, round_up

Case = tuple[BandSizes, int, int, int]

REACHES: Final = ((19, 0, 1), (34, 3, 1), (30, 0, 2), (1, 0, 1), (3, 2, 1), (5, 0, 2), (7, 4, 4))
"""Radius, reach and multiple: of three networks, and small ones."""

NARROWEST: Final = 32
"""Of a column, beside its halos."""


def sizes_of(radius: int, reach: int, multiple: int, window_px: int) -> BandSizes | None:
    spec = spec_of(halo_px=radius, radius_px=radius, multiple_px=multiple)
    return BandSizes.of(spec, radius + reach, window_px)


def least_window_for_bands_px(radius: int, reach: int, multiple: int) -> int:
    """The side of the smallest square whose pixels are enough for bands of the least width."""
    narrowest = least_window_px(radius + reach, NARROWEST)
    return math.isqrt(narrowest * 4 * (radius + reach + multiple) - 1) + 1


def random_cases(count: int) -> Iterator[Case]:
    """(sizes, first row, last row, width): of windows of more pixels than one by itself has."""
    chance = random.Random(31)
    for _ in range(count):
        radius, reach, multiple = chance.choice(REACHES)
        least = least_window_for_bands_px(radius, reach, multiple)
        sizes = sizes_of(radius, reach, multiple, chance.choice([least, least + 40, 512, 800]))
        assert sizes is not None
        narrowest = least_window_px(radius + reach, NARROWEST)
        width = chance.choice([chance.randint(narrowest, sizes.widest_px), sizes.widest_px])
        least_rows = sizes.most_px // width // multiple + 1
        height = multiple * (least_rows + int(chance.choice([0, 1, 5, 99, 999]) * chance.random()))
        first = multiple * chance.choice([0, 0, 1, 50])
        yield sizes, first, first + height, width


def plans(count: int = 500) -> Iterator[tuple[Case, list[BandRows]]]:
    for case in random_cases(count):
        sizes, first, last, width = case
        yield case, sizes.plan(first, last, width)


def test_bands_cover_all_rows_without_gap_or_overlap() -> None:
    for case, bands in plans():
        _, first, last, _ = case
        for rows in (
            [band.own for band in bands],
            [band.made for band in bands],
            [band.final for band in bands],
        ):
            assert (rows[0][0], rows[-1][1]) == (first, last), case
            assert all(above[1] == below[0] for above, below in pairwise(rows)), case
            assert all(start < end for start, end in rows), (case, rows)


def test_the_last_band_alone_is_the_last() -> None:
    for case, bands in plans():
        assert [band.is_last for band in bands] == [False] * (len(bands) - 1) + [True], case


def test_there_are_as_many_bands_as_counted_and_two_at_least() -> None:
    counts = set()
    for case, bands in plans():
        sizes, first, last, width = case
        assert len(bands) == sizes.count(last - first, width) >= 2, case
        counts.add(len(bands))
    assert {2, 3, 4} < counts
    assert max(counts) > 20


def test_a_window_of_no_more_pixels_than_one_by_itself_is_no_column() -> None:
    sizes = sizes_of(19, 0, 1, 512)
    assert sizes is not None
    assert sizes.count(512, 512) == 1
    assert sizes.count(513, 512) > 1


def test_bands_and_what_they_depend_on_start_and_end_on_the_networks_multiple() -> None:
    for case, bands in plans():
        multiple = case[0].multiple_px
        edges = [edge for band in bands for edge in (*band.own, *band.window)]
        assert not any(edge % multiple for edge in edges), case


def test_inner_bands_have_no_more_pixels_than_a_window_by_itself_and_others_little_more() -> None:
    """The first has 1.5 times as many at most, as it also has what inner bands leave."""
    for case, bands in plans():
        sizes, _, _, width = case
        first, *inner, last = (band.own[1] - band.own[0] for band in bands)
        assert max(inner, default=0) * width <= sizes.most_px, case
        assert first * width <= 1.5 * sizes.most_px, case
        assert last < sizes.halo_px + 6 * sizes.multiple_px, (case, last)


@pytest.mark.parametrize(("radius", "reach", "multiple"), REACHES[:3])
def test_no_band_of_the_largest_images_has_1_45_times_the_pixels_of_a_window_by_itself(
    radius: int, reach: int, multiple: int
) -> None:
    sizes = sizes_of(radius, reach, multiple, 512)
    assert sizes is not None
    for width in range(200, min(MAX_OUTPUT_SIDE_PX, sizes.widest_px), 211):
        for height in range(
            sizes.most_px // width // multiple + 1, MAX_OUTPUT_SIDE_PX // multiple, 151
        ):
            bands = sizes.plan(0, height * multiple, width)
            highest = max(band.own[1] - band.own[0] for band in bands)
            assert highest * width <= 1.45 * sizes.most_px, (height, width)


def test_the_last_band_has_rows_enough_for_all_layers() -> None:
    for case, bands in plans():
        sizes, last = case[0], bands[-1].own
        assert last[1] - last[0] >= sizes.halo_px + 4 * sizes.multiple_px, case


def test_an_inner_band_has_more_rows_than_twice_the_radius() -> None:
    for case, bands in plans():
        sizes = case[0]
        heights = [band.own[1] - band.own[0] for band in bands[1:-1]]
        assert min(heights, default=10**6) > 2 * sizes.radius_px, case


def test_inner_bands_are_alike() -> None:
    for case, bands in plans():
        heights = {band.own[1] - band.own[0] for band in bands[1:-1]}
        assert max(heights, default=0) - min(heights, default=0) <= case[0].multiple_px, case


def test_a_band_shows_all_that_its_results_depend_on() -> None:
    for case, bands in plans():
        sizes, first, last, _ = case
        for band in bands:
            assert band.window[0] <= max(first, band.shown[0] - sizes.radius_px), (case, band)
            assert band.window[1] >= min(last, band.shown[1] + sizes.radius_px), (case, band)
            assert first <= band.window[0] <= band.own[0], (case, band)
            assert band.window[1] == band.own[1], (case, band)


def test_a_band_depends_on_rows_of_its_own_and_above_alone() -> None:
    """Only the first begins where its window does: that is how a column is opened."""
    for case, bands in plans():
        starts = [band.window[0] == band.own[0] for band in bands]
        assert starts == [True] + [False] * (len(bands) - 1), case


def test_post_processing_is_shown_rows_above_that_it_read_before() -> None:
    for case, bands in plans():
        sizes, first, _, _ = case
        for band in bands:
            above = max(first, band.made[0] - 2 * sizes.reach_px)
            assert band.shown == (above, band.made[1]), (case, band)


def test_final_rows_are_shown_with_all_that_post_processing_reads() -> None:
    for case, bands in plans():
        sizes, first, last, _ = case
        for band in bands:
            assert band.shown[0] <= max(first, band.final[0] - sizes.reach_px), (case, band)
            assert band.shown[1] >= min(last, band.final[1] + sizes.reach_px), (case, band)


@pytest.mark.parametrize(("radius", "reach", "multiple"), REACHES)
def test_windows_too_small_for_columns_have_no_bands(
    radius: int, reach: int, multiple: int
) -> None:
    least = least_window_for_bands_px(radius, reach, multiple)
    assert sizes_of(radius, reach, multiple, least) is not None
    assert sizes_of(radius, reach, multiple, least - 1) is None


def test_a_large_image_has_each_of_its_pixels_computed_once() -> None:
    windows = Tiling(
        window_px=512, halo_px=19, multiple_px=1, part_step_px=8, stretch=2, ends_short=True
    )
    in_bands = replace(windows, bands=sizes_of(19, 0, 1, 512))

    assert in_bands.count_px(1500, 1500) == count_px(in_bands.plan(1500, 1500)) == 1500 * 1500
    assert 1.1 < windows.count_px(1500, 1500) / 1500**2 < 1.16


def test_halos_are_at_the_sides_of_columns_alone() -> None:
    tiling = Tiling(
        window_px=256, halo_px=19, multiple_px=1, part_step_px=8, bands=sizes_of(19, 0, 1, 256)
    )
    tiles = tiling.plan(2000, 2000)
    lefts = {tile.window.left for tile in tiles}

    assert len(lefts) > 1
    assert tiling.count_px(2000, 2000) == 2000 * len(lefts) * tiles[0].window.width
    assert {tile.window.width for tile in tiles} == {tiles[0].window.width}


@pytest.mark.parametrize("needs_flat_halo", [True, False])
@pytest.mark.parametrize("cases", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_windows_and_bands_hold_all_content_once_and_keep_their_halo(
    cases: int, needs_flat_halo: bool
) -> None:
    chance, in_bands = random.Random(6), 0
    for seed in range(cases):
        tiling = random_tiling(chance, needs_flat_halo=needs_flat_halo)
        rgb = product_photo(chance.randint(1, 300), chance.randint(1, 300), seed)[0]
        height, width = rgb.shape[:2]
        content = Content.of(rgb, None, tiling.halo_px)
        written = np.zeros((height, width), np.uint8)
        for tile in content.plan(tiling):
            tile.core.read(written)[...] += 1
            assert fits(tile, tiling, height, width), (seed, tiling, tile)
            in_bands += tile.band is not None
        cells = content.cells.repeat(CELL_PX, 0).repeat(CELL_PX, 1)[:height, :width]
        assert written.max(initial=0) <= 1, seed
        assert (written[cells] == 1).all(), seed
    assert in_bands > cases / 5


def random_tiling(chance: random.Random, *, needs_flat_halo: bool) -> Tiling:
    radius, reach, multiple = chance.choice([*REACHES, (2, 0, 1), (9, 0, 4)])
    window_px = least_window_for_bands_px(radius, reach, multiple) + chance.randint(0, 30)
    is_ready = chance.random() < 0.5
    step = round_up(8, multiple) if is_ready else round_up(window_px // 4, max(16, multiple))
    return Tiling(
        window_px=window_px,
        halo_px=radius + reach,
        multiple_px=multiple,
        part_step_px=step,
        stretch=2 if is_ready else 1,
        needs_flat_halo=needs_flat_halo,
        window_price_px=chance.choice([100, READY_WINDOW_PRICE_PX]),
        bands=sizes_of(radius, reach, multiple, window_px),
    )


def fits(tile: Tile, tiling: Tiling, height: int, width: int) -> bool:
    core, shown, window, halo = tile.core, tile.shown, tile.window, tiling.halo_px
    gaps = side_halos(tile, width) if tiling.needs_flat_halo else []
    return (
        core.height > 0
        and core.width > 0
        and min(window.top, window.left) >= 0
        and window.bottom < height + tiling.multiple_px
        and window.right < width + tiling.multiple_px
        and shown.top <= core.top < core.bottom <= shown.bottom
        and window.left <= core.left < core.right <= window.right
        and min(gaps, default=halo) >= halo
        and is_small_enough(tile, tiling)
    )


def is_small_enough(tile: Tile, tiling: Tiling) -> bool:
    """A window by itself is, without the rows that its height was rounded up by."""
    bands, window, band = tiling.bands, tile.window, tile.band
    assert bands is not None
    if band is None:
        least_height = window.height - tiling.step_of_parts_px + 1
        return least_height * window.width <= tiling.window_px**2
    return window.width <= bands.widest_px and band.own[0] < band.own[1]


def side_halos(tile: Tile, width: int) -> list[int]:
    """How far the core is from each side of its window that is not the image's."""
    core, window = tile.core, tile.window
    left = [core.left - window.left] if window.left > 0 else []
    return left + ([window.right - core.right] if window.right < width else [])


@pytest.mark.parametrize("step_px", [8, 128])
def test_content_narrower_than_two_halos_is_one_window(step_px: int) -> None:
    """In a corner of a flat image: its window ends where all beyond is flat."""
    tiling = Tiling(
        window_px=512,
        halo_px=19,
        multiple_px=1,
        part_step_px=step_px,
        needs_flat_halo=False,
        bands=sizes_of(19, 0, 1, 512),
    )
    noise = np.random.default_rng(5).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for side in range(1, 40):
        rgb = np.full((200, 200, 3), 255, np.uint8)
        rgb[:side, :side] = noise[:side, :side]
        content = Content.of(rgb, None, 19)
        (tile,) = content.plan(tiling)
        assert min(tile.window.height, tile.window.width) >= 19 + side, side
        assert min(tile.core.height, tile.core.width) >= CELL_PX * content.cells[0].sum(), side


def test_a_part_of_as_many_pixels_as_a_window_is_no_column_once_its_sides_are_rounded() -> None:
    """Its bands would be lower than a network's layers need: it is cut into narrower windows."""
    tiling = Tiling(
        window_px=512,
        halo_px=37,
        multiple_px=1,
        part_step_px=8,
        needs_flat_halo=False,
        bands=sizes_of(34, 3, 1, 512),
    )
    part = Region(200, 80, 103, 2545)
    assert part.height * part.width < 512**2 < part.height * round_up(part.width, 8)
    for tile in tiling.plan(1000, 2900, part, part):
        assert fits(tile, tiling, 1000, 2900), tile
