"""Plans of passes, and properties of plans of windows on some thousand sizes."""

import random
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from upscaled.upscale.passes import Pass, find_gain, plan_passes
from upscaled.upscale.region import Region
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import READY_WINDOW_PRICE_PX, Tiling
from upscaled_models.backends.base import least_window_px, round_up
from upscaled_models.registry import makes_every_scale

Case = tuple[int, int, int, int, int, int]


def random_cases(count: int) -> list[Case]:
    """(height, width, window, halo, multiple, step), small and thin images among them."""
    chance = random.Random(20)
    cases = []
    for _ in range(count):
        multiple, halo = chance.choice([1, 2, 4, 8]), chance.randint(0, 20)
        window = least_window_px(halo, multiple) + chance.randint(0, 90)
        height, width = (chance.choice([1, 2, 5, 64, 100, 200, 333]) for _ in range(2))
        step = chance.choice([1, round_up(16, multiple), 48])
        cases.append((height + chance.randint(0, 3), width, window, halo, multiple, step))
    return cases


KINDS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"ends_short": True},
    {"stretch": 2, "part_step_px": 8},
    {"stretch": 2, "part_step_px": 8, "ends_short": True},
)


def tiling_of(case: Case, **kind: Any) -> Tiling:
    _, _, window, halo, multiple, step = case
    return Tiling(
        window_px=window,
        halo_px=halo,
        multiple_px=multiple,
        shape_step_px=step,
        **kind,
    )


def plan_of(case: Case, **kind: Any) -> tuple[Tile, ...]:
    return tiling_of(case, **kind).plan(*case[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_cores_cover_every_pixel_exactly_once(kind: dict[str, Any]) -> None:
    for case in random_cases(400):
        covered = np.zeros(case[:2], np.uint8)
        for tile in plan_of(case, **kind):
            tile.core.read(covered)[...] += 1
        assert (covered == 1).all(), case


def test_all_windows_of_a_plan_have_one_size_no_longer_than_allowed() -> None:
    for case in random_cases(400):
        sizes = {(tile.window.height, tile.window.width) for tile in plan_of(case)}
        assert len(sizes) == 1, case
        assert max(sizes.pop()) <= case[2], case


def test_long_windows_of_an_image_have_no_more_pixels_than_a_square_and_cost_less() -> None:
    chance, shares = random.Random(21), list[float]()
    squares = Tiling(window_px=512, halo_px=19, multiple_px=1, shape_step_px=32, ends_short=True)
    long = replace(squares, stretch=2, part_step_px=8, window_price_px=READY_WINDOW_PRICE_PX)
    for _ in range(300):
        size = chance.randint(300, 3000), chance.randint(300, 3000)
        plan = long.plan(*size)
        widths = {tile.window.width for tile in plan}
        assert len(widths) == 1, size
        assert all(tile.window.height * tile.window.width <= 512**2 for tile in plan), size
        assert max(*widths, *rows_of(plan)) <= 1024, size
        shares.append(price_of(plan, long) / price_of(squares.plan(*size), long))
    assert max(shares) <= 1.02
    assert np.mean(shares) < 0.96


def price_of(plan: tuple[Tile, ...], tiling: Tiling) -> int:
    return count_px(plan) + tiling.window_price_px * len(plan)


def test_windows_that_end_short_are_as_many_and_only_the_lowest_are_shorter() -> None:
    shorter = 0
    for case in random_cases(1000):
        alike, short = plan_of(case), plan_of(case, ends_short=True)
        *others, last = rows_of(short)
        assert len(short) == len(alike), case
        assert len(set(others)) <= 1, case
        assert last <= max(others, default=last) <= case[2], case
        assert {tile.window.width for tile in short} == {tile.window.width for tile in alike}, case
        assert count_px(short) <= count_px(alike), case
        shorter += last < alike[0].window.height
    assert shorter > 200


def rows_of(plan: tuple[Tile, ...]) -> list[int]:
    """The height of the windows of each row of windows, from the top."""
    return [height for _, height in sorted({(t.window.top, t.window.height) for t in plan})]


def test_the_lowest_windows_are_a_sixth_of_the_others_where_their_length_allows() -> None:
    for window_px, rows in ((512, [512, 512, 512, 96]), (688, [672, 672, 256])):
        tiling = Tiling(
            window_px=window_px, halo_px=19, multiple_px=1, shape_step_px=32, ends_short=True
        )
        assert rows_of(tiling.plan(1500, 1500)) == rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_an_image_is_the_pixels_of_its_windows(kind: dict[str, Any]) -> None:
    for case in random_cases(400):
        tiling = tiling_of(case, **kind)
        assert tiling.count_px(*case[:2]) == count_px(tiling.plan(*case[:2])), case


@pytest.mark.parametrize("kind", KINDS)
def test_windows_lie_on_the_networks_multiple_inside_the_image_padded_to_it(
    kind: dict[str, Any],
) -> None:
    for case in random_cases(400):
        height, width, _, _, multiple, _ = case
        for window in (tile.window for tile in plan_of(case, **kind)):
            edges = (window.top, window.left, window.height, window.width)
            assert all(edge % multiple == 0 for edge in edges), case
            assert min(window.top, window.left) >= 0, case
            assert window.bottom < height + multiple, case
            assert window.right < width + multiple, case


@pytest.mark.parametrize("kind", KINDS)
def test_each_core_keeps_its_halo_to_every_window_border_that_is_not_the_images_own(
    kind: dict[str, Any],
) -> None:
    for case in random_cases(400):
        height, width, _, halo, _, _ = case
        for tile in plan_of(case, **kind):
            assert least_halo_px(tile, height, width) >= halo, (case, tile)


def least_halo_px(tile: Tile, height: int, width: int) -> int:
    core, window = tile.core, tile.window
    gaps = [
        (core.top - window.top, window.top == 0),
        (core.left - window.left, window.left == 0),
        (window.bottom - core.bottom, window.bottom >= height),
        (window.right - core.right, window.right >= width),
    ]
    return min((gap for gap, is_image_border in gaps if not is_image_border), default=10**6)


def test_an_image_of_one_window_is_one_tile_and_one_pixel_more_is_two() -> None:
    one = Tiling(window_px=64, halo_px=10, multiple_px=1).plan(64, 64)
    two = Tiling(window_px=64, halo_px=10, multiple_px=1).plan(64, 65)

    assert len(one) == 1
    assert len(two) == 2


def test_windows_of_a_tiled_axis_have_a_length_on_the_step_where_a_core_fits() -> None:
    on_step = 0
    for case in random_cases(1000):
        height, width, window, halo, multiple, step = case
        if window // step * step < least_window_px(halo, multiple):
            continue
        shape = plan_of(case)[0].window
        for side, length in ((height, shape.height), (width, shape.width)):
            padded = round_up(side, multiple)
            assert length == padded if padded <= window else length % step == 0, case
            on_step += padded > window and step > 1
    assert on_step > 200


def test_images_of_many_sizes_make_few_shapes() -> None:
    shapes = set()
    for side in range(257, 1500, 7):
        plan = Tiling(window_px=256, halo_px=10, multiple_px=1, shape_step_px=16).plan(side, side)
        shapes |= {tile.window.height for tile in plan}
    assert shapes <= set(range(144, 257, 16))


def test_windows_are_as_short_as_their_number_allows() -> None:
    """1500 px takes 4 windows of at most 512: 404 px each do, 38 % less area."""
    plan = Tiling(window_px=512, halo_px=19, multiple_px=1).plan(1500, 1500)

    assert len(plan) == 16
    assert {tile.window.width for tile in plan} == {404}


@pytest.mark.parametrize(("halo", "multiple", "least"), [(0, 1, 1), (10, 1, 21), (9, 4, 24)])
def test_the_least_window_works_and_one_pixel_less_is_refused(
    halo: int, multiple: int, least: int
) -> None:
    assert least_window_px(halo, multiple) == least
    Tiling(window_px=least, halo_px=halo, multiple_px=multiple).plan(100, 100)
    with pytest.raises(ValueError, match="no core"):
        Tiling(window_px=least - 1, halo_px=halo, multiple_px=multiple).plan(100, 100)


def test_a_region_reads_what_it_wrote() -> None:
    canvas = np.zeros((10, 12, 3), np.uint8)
    region = Region(2, 3, 4, 5)
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)

    region.write(canvas, pixels)

    assert np.array_equal(region.read(canvas), pixels)
    assert canvas.astype(int).sum() == pixels.astype(int).sum()


def test_scaled_regions_of_a_partition_are_a_partition() -> None:
    left, right = Region(0, 0, 7, 3), Region(0, 3, 7, 4)

    assert left.scaled(4).right == right.scaled(4).left
    assert right.scaled(4) == Region(0, 12, 28, 16)


def test_coordinates_within_a_region_count_from_its_corner() -> None:
    assert Region(10, 20, 3, 4).within(Region(8, 15, 50, 50)) == Region(2, 5, 3, 4)


@pytest.mark.parametrize("shape", [(3, 5, 3), (4, 1, 3), (1, 1, 3)])
def test_pixels_of_another_size_are_refused_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fill"):
        Region(0, 0, 4, 5).write(np.zeros((9, 9, 3), np.uint8), np.zeros(shape, np.uint8))


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
def test_any_scale_works_with_any_network(
    scale: int, native: int, passes: tuple[Pass, ...]
) -> None:
    assert plan_passes(scale, native) == passes


@pytest.mark.parametrize(("scale", "native"), [(2, 3), (3, 2), (2, 1), (4, 1)])
def test_a_scale_no_number_of_passes_makes_is_refused(scale: int, native: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        plan_passes(scale, native)


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


@pytest.mark.parametrize(
    ("scale", "native_scale", "gain"), [(2, 2, 2), (2, 4, 2), (4, 4, 4), (4, 2, 2), (4, 8, 4)]
)
def test_every_pass_of_an_image_enlarges_it_alike(scale: int, native_scale: int, gain: int) -> None:
    assert find_gain(scale, native_scale) == gain
