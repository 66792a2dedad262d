"""Expect what an image takes of the device, from its size alone and before it is decoded."""

from upscaled.image.output import OutputSpec
from upscaled.image.types import Header
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import Rung, rungs_for
from upscaled.upscale.result import Expectation
from upscaled.upscale.tile_queue import USUAL_S_PER_PX
from upscaled.upscale.tiles import Tiling


def expect_upscale(core: Core, header: Header, scale: int, output: OutputSpec) -> Expectation:
    """Return what upscaling an image will take on a core that was opened warm."""
    px = header.width_px * header.height_px
    rungs = rungs_for(core.ladders[scale], px, is_deep=output.is_deep)
    return Expectation(
        models=tuple(rung.model for rung in rungs),
        device_s=max(_expect_device_s(core, header, rung) for rung in rungs),
    )


def _expect_device_s(core: Core, header: Header, rung: Rung) -> float:
    models = filter(None, (rung.model, rung.tempered_with))
    return sum(_count_window_px(core, header, model) * _s_per_px(core, model) for model in models)


def _s_per_px(core: Core, model: str) -> float:
    return core.seconds_per_px.get(model, USUAL_S_PER_PX)


def _count_window_px(core: Core, header: Header, model: str) -> int:
    """Return the pixels of all windows that a network sees of an image, halos included."""
    with core.models.use(model) as engine:
        info = engine.info
    tiling = Tiling(
        window_px=info.window_px,
        halo_px=info.spec.halo_px,
        multiple_px=info.spec.multiple_px,
        shape_step_px=info.shape_step_px,
    )
    return tiling.count_px(header.height_px, header.width_px)
