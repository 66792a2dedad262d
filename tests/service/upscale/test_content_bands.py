import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.backends.openvino.test_engine import engine_of
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.band_plan import BandSizes
from upscaled.upscale.content import CELL_PX, Content, make_tiling
from upscaled.upscale.content_bands import follow_content
from upscaled.upscale.loop import upscale_by_tiles
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import READY_WINDOW_PRICE_PX, Tiling
from upscaled_models.backends.base import Engine
from upscaled_models.backends.openvino.engine import OpenVinoPrecision
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.families.plain import plain_shape

RADIUS_PX = 19


def tiling_of(multiple: int = 1, reach: int = 0) -> Tiling:
    return Tiling(
        window_px=512,
        halo_px=RADIUS_PX + reach,
        multiple_px=multiple,
        part_step_px=8,
        stretch=2,
        window_price_px=READY_WINDOW_PRICE_PX,
        needs_flat_halo=False,
        bands=BandSizes(
            most_px=512**2, radius_px=RADIUS_PX + 1, reach_px=reach, multiple_px=multiple
        ),
    )


def ellipse(height: int, width: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:height, :width]
    down, across = (rows / height - 0.5) / 0.41, (columns / width - 0.5) / 0.31
    return np.asarray(down**2 + across**2 < 1)


def photo_of(is_object: NDArray[np.bool_], seed: int = 1) -> Pixels:
    noise = np.random.default_rng(seed).integers(0, 256, (*is_object.shape, 3), dtype=np.uint8)
    return np.where(is_object[..., None], noise, np.uint8(255))


def random_photos() -> Iterator[tuple[Pixels, Content]]:
    for seed in range(12):
        chance = random.Random(seed)
        height, width = chance.randint(600, 1200), chance.randint(500, 1500)
        is_object = np.zeros((height, width), np.bool_)
        for _ in range(chance.randint(1, 5)):
            top, left = chance.randrange(height - 40), chance.randrange(width - 40)
            part = is_object[top : top + chance.randint(40, 700), left:][
                :, : chance.randint(40, 700)
            ]
            part |= ellipse(*part.shape)
        rgb = photo_of(is_object, seed)
        yield rgb, Content.of(rgb, None, RADIUS_PX)


def plan_of(content: Content, tiling: Tiling) -> list[Tile]:
    size = (content.height_px, content.width_px)
    tiles = follow_content(~content.is_flat, CELL_PX, size, tiling)
    assert tiles is not None
    return tiles


@pytest.mark.parametrize("multiple", [1, 2])
def test_bands_hold_all_that_is_not_flat_once(multiple: int) -> None:
    for rgb, content in random_photos():
        kept = np.zeros(rgb.shape[:2], np.int64)
        for tile in plan_of(content, tiling_of(multiple)):
            core = tile.core.read(kept)
            assert core.shape == (tile.core.height, tile.core.width), "it lies in the image"
            core += 1
        assert kept.max() == 1
        rows, columns = (np.arange(side_px) // CELL_PX for side_px in rgb.shape[:2])
        assert kept[~content.is_flat[rows[:, None], columns]].min() == 1


def test_what_a_band_goes_on_with_is_flat_beyond_its_sides() -> None:
    moved = 0
    for _, content in random_photos():
        for tile in plan_of(content, tiling_of()):
            if tile.band is None:
                continue
            first = tile.band.own[0] - (0 if tile.band.is_first else RADIUS_PX)
            rows = content.is_flat[first // CELL_PX : -(-tile.band.own[1] // CELL_PX)]
            assert rows[:, : tile.window.left // CELL_PX].all()
            assert rows[:, -(-tile.window.right // CELL_PX) :].all()
            moved += tile.window.left % 512
    assert moved


def test_bands_of_a_window_are_high_enough_for_a_network_and_no_larger_than_others() -> None:
    bands = tiling_of().bands
    assert bands is not None
    for _, content in random_photos():
        for tile in plan_of(content, tiling_of()):
            if tile.band is None:
                assert tile.px <= bands.most_px
                continue
            rows = tile.band.own[1] - tile.band.own[0]
            least = bands.last_px if tile.band.is_last else bands.least_px
            assert rows >= (bands.first_px if tile.band.is_first else least)
            assert tile.px <= bands.usual_px


def test_a_product_photo_takes_less_than_half_of_a_full_pictures_pixels() -> None:
    rgb = photo_of(ellipse(1500, 1500))
    tiles = Content.of(rgb, None, RADIUS_PX).plan(tiling_of())
    assert ellipse(1500, 1500).mean() == pytest.approx(0.4, abs=0.002)
    assert count_px(tiles) <= 0.49 * tiling_of().count_px(1500, 1500)


def test_nothing_is_laid_around_where_post_processing_reads_other_rows_or_there_is_nothing() -> (
    None
):
    cells = ~Content.of(photo_of(ellipse(900, 900)), None, RADIUS_PX).is_flat
    assert follow_content(cells, CELL_PX, (900, 900), tiling_of(reach=3)) is None
    assert follow_content(cells, CELL_PX, (900, 900), replace(tiling_of(), bands=None)) is None
    assert follow_content(np.zeros_like(cells), CELL_PX, (900, 900), tiling_of()) is None


def upscale(rgb: Pixels, engine: Engine) -> Pixels:
    with Scheduler() as scheduler, scheduler.open_stream(engine) as stream:
        *_, last = upscale_by_tiles(Image(rgb), 4, stream)
    assert last.result is not None
    return last.result.rgb


def count_sides(rgb: Pixels, engine: Engine) -> int:
    """The left sides that the bands of a photo have."""
    spec = engine.info.spec
    tiling = make_tiling(
        engine.info, spec.halo_px, engine.info.window_px, needs_flat_halo=not spec.keeps_colour
    )
    tiles = Content.of(rgb, None, spec.radius_px).plan(tiling)
    return len({tile.window.left for tile in tiles if tile.band is not None})


@pytest.mark.parametrize(("fold", "precision"), [(1, "int8"), (2, "int8"), (1, "bfloat16")])
def test_bands_that_follow_content_give_the_pixels_of_the_whole_image(
    monkeypatch: pytest.MonkeyPatch, fold: int, precision: OpenVinoPrecision
) -> None:
    if precision == "bfloat16" and not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    for price in ("READY_WINDOW_PRICE_PX", "COMPILED_WINDOW_PRICE_PX"):
        monkeypatch.setattr(f"upscaled.upscale.content.{price}", 64)
    shape = plain_shape(scale=4, layers=2, features=8, fold=fold)
    engine = engine_of("plain", shape, precision)
    spec = replace(engine.info.spec, keeps_colour=True)
    engine = replace(engine, info=replace(engine.info, spec=spec))
    monkeypatch.setattr("upscaled_models.backends.openvino.columns.PX_BEFORE_BANDS", 0)
    whole = engine.sized(window_px=2048, batch=1, proof="")
    bands = engine.sized(window_px=160, batch=1, proof="")
    corner = np.tri(340, 300, dtype=np.bool_)
    for at, is_object in enumerate((ellipse(420, 360), corner, corner[::-1, ::-1])):
        rgb = photo_of(np.pad(is_object, 8), at)
        assert count_sides(rgb, bands) >= (1 if at == 1 else 2), at
        assert np.array_equal(upscale(rgb, bands), upscale(rgb, whole)), at
