"""Two networks for one image: what comes of tiles, depths, flat colours, failures and shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.specs import spec_of
from tests.service.upscale.box_engine import BoxEngine, RowsReady, box_sum, finish, upscale_through
from tests.service.upscale.test_content import EdgeEngine, LayeredEngine, plan_all, run_of
from tests.service.upscale.true_engine import TrueEngine
from upscaled.config import Settings
from upscaled.errors import InternalError
from upscaled.image.types import Image
from upscaled.upscale.content import Content
from upscaled.upscale.loop import TilesDone, upscale_by_tiles
from upscaled.upscale.post_process.colour_correction import keep_flat
from upscaled.upscale.post_process.steps import PostProcessing, choose_post_processing
from upscaled.upscale.post_process.tempering import Tempering, temper
from upscaled.upscale.scheduler import Scheduler
from upscaled_models.backends.base import Window
from upscaled_models.errors import EngineOutOfMemory

TEMPERING = Tempering(8, 0.5)
TEMPERED = PostProcessing(tempering=TEMPERING)


@dataclass
class VividEngine(TrueEngine):
    """Repeats pixels and adds texture, of what lies around a pixel."""

    def filter(self, window: Window) -> Window:
        texture = box_sum(window.astype(np.int64), self.radius_px) % 23 - 11
        texture *= np.iinfo(window.dtype).max // 255
        vivid = np.clip(window + texture, 0, np.iinfo(window.dtype).max).astype(window.dtype)
        return super().filter(vivid)


@contextmanager
def tempered_states(
    rgb: NDArray[Any], scale: int, vivid: BoxEngine, faithful: BoxEngine, steps: PostProcessing
) -> Iterator[Iterator[TilesDone]]:
    with (
        Scheduler() as scheduler,
        scheduler.open_stream(vivid) as stream,
        scheduler.open_stream(faithful, beside=stream) as beside,
    ):
        yield upscale_by_tiles(Image(rgb), scale, stream, steps, beside)


def run(
    rgb: NDArray[Any],
    scale: int,
    vivid: BoxEngine,
    faithful: BoxEngine,
    steps: PostProcessing = TEMPERED,
) -> NDArray[Any]:
    with tempered_states(rgb, scale, vivid, faithful, steps) as progress:
        return np.asarray(finish(progress).rgb)


def noise(height: int, width: int, dtype: type[np.uint8 | np.uint16] = np.uint8) -> NDArray[Any]:
    random = np.random.default_rng(7)
    smooth = random.integers(60, 190, (height // 8 + 1, width // 8 + 1, 3))
    levels = smooth.repeat(8, 0).repeat(8, 1)[:height, :width]
    return (levels * (np.iinfo(dtype).max // 255)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("native_scale", [2, 4])
@pytest.mark.parametrize("halo_of_faithful_px", [0, 9])
def test_tiled_equals_untiled_whichever_network_has_the_wider_halo(
    dtype: type[np.uint8 | np.uint16], native_scale: int, halo_of_faithful_px: int
) -> None:
    rgb = noise(75, 130, dtype)

    def tempered(window_px: int) -> NDArray[Any]:
        vivid = VividEngine(window_px=window_px, native_scale=native_scale)
        halo_px = halo_of_faithful_px
        faithful = TrueEngine(radius_px=halo_px, halo_px=halo_px, native_scale=2)
        return run(rgb, 2, vivid, faithful)

    whole = tempered(200)
    assert np.array_equal(tempered(48), whole)
    image, engine = Image(rgb), VividEngine(window_px=200, native_scale=native_scale)
    vivid = upscale_through(image, 2, engine).rgb
    faithful = upscale_through(image, 2, TrueEngine(window_px=200)).rgb
    assert np.array_equal(whole, keep_flat(rgb, temper(vivid, faithful, TEMPERING), faithful))
    assert not np.array_equal(whole, vivid)
    assert not np.array_equal(whole, faithful)


def test_both_networks_see_the_same_windows() -> None:
    vivid, faithful = VividEngine(window_px=40), TrueEngine(window_px=500)
    run(noise(60, 90), 2, vivid, faithful)
    assert len(vivid.seen) > 1
    assert sorted(vivid.seen) == sorted(faithful.seen)


def test_each_of_two_passes_is_tempered() -> None:
    vivid, faithful = VividEngine(), TrueEngine()
    result = run(noise(24, 24), 4, vivid, faithful)
    assert result.shape == (96, 96, 3)
    assert len(vivid.seen) == len(faithful.seen) > 1


def test_flat_colours_are_unchanged_and_grey_pictures_are_grey() -> None:
    steps = choose_post_processing(spec_of(), Settings(), TEMPERING)
    flat = np.full((60, 60, 3), (12, 130, 200), np.uint8)
    shifted = VividEngine(window_px=48, fault=lambda result: result + np.uint8(3))
    assert (run(flat, 2, shifted, TrueEngine(), steps) == flat[0, 0]).all()
    grey = noise(60, 60)[..., :1].repeat(3, axis=2)

    def tint(result: Window) -> Window:
        return np.asarray(result // 2 * 2 + np.array((1, 0, 0), np.uint8), np.uint8)

    made = run(grey, 2, VividEngine(window_px=48, fault=tint), TrueEngine(), steps)
    assert (made == made[..., :1]).all()


def black(result: Window) -> Window:
    return np.zeros_like(result)


@pytest.mark.parametrize("is_vivid", [True, False])
def test_an_implausible_window_of_either_network_is_computed_again(is_vivid: bool) -> None:
    steps = choose_post_processing(spec_of(), Settings(), TEMPERING)
    rgb = noise(60, 90)
    right = run(rgb, 2, VividEngine(window_px=48), TrueEngine(), steps)
    vivid, faithful = VividEngine(window_px=48), TrueEngine()
    broken = vivid if is_vivid else faithful
    broken.fault = black
    assert np.array_equal(run(rgb, 2, vivid, faithful, steps), right)
    broken.exact_fault = black
    with pytest.raises(InternalError):
        run(rgb, 2, vivid, faithful, steps)


def test_both_networks_get_smaller_windows_where_one_is_out_of_memory() -> None:
    rgb = noise(100, 100)
    right = run(rgb, 2, VividEngine(window_px=100), TrueEngine())

    def full(result: Window) -> Window:
        if result.shape[0] > 150:
            raise EngineOutOfMemory
        return result

    vivid = VividEngine(window_px=100)
    faithful = TrueEngine(fault=full, exact_fault=full)
    assert np.array_equal(run(rgb, 2, vivid, faithful), right)
    assert min(vivid.seen) < (100, 100)


def test_windows_keep_their_halo_in_flat_areas_which_tempering_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although both networks keep colours: without tempering no window needs it there."""
    few = 0
    for seed in range(8):
        vivid = LayeredEngine(radius_px=3, halo_px=3, window_px=70, shape_step_px=8)
        faithful = EdgeEngine(radius_px=2, halo_px=2, window_px=70, shape_step_px=8)
        rgb = run_of(seed, has_alpha=False)[0].rgb
        result = run(rgb, 2, vivid, faithful)
        few += sum(h * w for h, w in vivid.seen) < 0.6 * rgb.shape[0] * rgb.shape[1]
        with monkeypatch.context() as patch:
            patch.setattr(Content, "plan", plan_all)
            everything = run(rgb, 2, vivid, faithful)
        assert np.array_equal(result, everything), seed
    assert few > 2


def test_rows_are_final_when_they_are_reported() -> None:
    vivid, faithful = VividEngine(window_px=40), TrueEngine()
    with tempered_states(noise(90, 60), 2, vivid, faithful, TEMPERED) as progress:
        RowsReady(progress).assert_final()
