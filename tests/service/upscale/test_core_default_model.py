"""What the default model of x4 gives through the whole core: colours, greys, tiles, alpha."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from upscaled.config import Settings, load_settings
from upscaled.image.output import OutputSpec, decide_output
from upscaled.image.types import Image
from upscaled.upscale.core import Core
from upscaled.upscale.opening import open_core

MODEL = "upscaled-x4"
MARGIN_PX = 3
"""How far from a flat area's edge its result may depend on what is beside it."""

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module", params=["exact", pytest.param("fast", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """By `fast` the model runs in 8 bits where the processor multiplies them faster."""
    folder: Path = tmp_path_factory.mktemp("data")
    return load_settings({}, data_dir=folder, device="cpu", precision=request.param)


@pytest.fixture(scope="module")
def core(settings: Settings) -> Iterator[Core]:
    with open_core(settings, scales=(4,), decoders=0) as opened:
        yield opened


def busy(height: int, width: int) -> Pixels:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def output_of(image: Image) -> OutputSpec:
    return decide_output(image, 4, keeps_depth=True, max_side_px=9000)


def upscale(core: Core, rgb: Pixels, alpha: Pixels | None = None) -> Image:
    image = Image(rgb, alpha)
    return core.upscale_image(image, 4, output_of(image))


def test_a_usual_picture_uses_the_default_model_and_a_huge_one_the_faithful(core: Core) -> None:
    first, last = core.ladders[4]
    assert (first.model, first.tempered_with) == (MODEL, "")
    assert first.most_px is not None
    assert core.choose(Image(busy(30, 40)), 4, is_deep=False)[0] == first
    side_px = int(first.most_px**0.5) + 1
    huge = np.broadcast_to(np.zeros(3, np.uint8), (side_px, side_px, 3))
    assert core.choose(Image(huge), 4, is_deep=False)[0] == last
    assert last.model == "upscaled-x4-faithful"


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 0, 255), (13, 200, 77)])
def test_flat_colours_beside_a_busy_area_come_back_exactly(
    core: Core, colour: tuple[int, int, int]
) -> None:
    rgb = busy(32, 48)
    rgb[:, 16:] = colour
    result = upscale(core, rgb).rgb
    assert (result[:, 4 * (16 + MARGIN_PX) :] == colour).all()
    assert (result[:, :32] != colour).any()


def test_a_grey_picture_has_a_grey_result(core: Core) -> None:
    grey = np.repeat(busy(24, 32)[..., :1], 3, axis=2)
    result = upscale(core, grey).rgb
    assert (result[..., 0] == result[..., 1]).all()
    assert (result[..., 0] == result[..., 2]).all()
    assert result.std() > 10


def test_hidden_colours_change_no_visible_pixel(core: Core) -> None:
    rgb, other = busy(32, 40), busy(32, 40)
    alpha = np.full((32, 40), 255, np.uint8)
    alpha[:, 20:] = 0
    other[:, 20:] = 255 - rgb[:, 20:]
    one, two = upscale(core, rgb, alpha), upscale(core, other, alpha)
    assert one.alpha is not None
    assert two.alpha is not None
    assert np.array_equal(one.alpha, two.alpha)
    seen = one.alpha > 0
    assert seen.any()
    assert np.array_equal(one.rgb[seen], two.rgb[seen])


def test_tiles_leave_no_seam(core: Core, settings: Settings) -> None:
    """In float32, with the colour correction after it: its halo is as wide as it sees."""
    rgb = busy(40, 130)
    small = settings.model_copy(update={"tile_window_px": 112, "model_x4": MODEL})
    totals: list[int] = []
    image = Image(rgb)
    with open_core(small, scales=(4,), decoders=0) as tiling:
        tiled = tiling.upscale_image(
            image, 4, output_of(image), on_tile=lambda _, total: totals.append(total)
        )
    assert totals[-1] > 1
    assert np.array_equal(tiled.rgb, upscale(core, rgb).rgb)
