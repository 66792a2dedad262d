"""The upscaling of one image: a plain loop over its tiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Engine, EngineOutOfMemory, Window, least_window_px
from service.image.alpha import bleed_colour, upscale_alpha
from service.image.types import Image
from service.upscale.plan import TilePlan

OnTile = Callable[[int, int], None]


class Cancelled(Exception):
    """Nobody waits for this image any more; raised by `on_tile` to leave the loop."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of the whole image through the network: `gain` times as large afterwards."""

    gain: int
    reduce: int


def upscale(image: Image, scale: int, engine: Engine, *, on_tile: OnTile) -> Image:
    """Upscale an image to exactly `scale` times its width and height.

    Args:
        scale: at least 1; any scale goes through any network (see `plan_passes`).
        on_tile: called with (done, total) before the first tile and after each; what it raises
            ends the work. Starts again from 0, with another total, when the device runs out of
            memory and the image is computed again in smaller windows.

    Raises:
        Cancelled: whenever `on_tile` raises it.
        EngineOutOfMemory: not even the smallest window fits the device.
        InternalError: the network's result is not finite.
    """
    rgb = image.rgb if image.alpha is None else bleed_colour(image.rgb, image.alpha)
    rgb = _upscale_rgb(rgb, plan_passes(scale, engine.native_scale), engine, on_tile)
    alpha = None if image.alpha is None else upscale_alpha(image.alpha, scale)
    return Image(rgb=rgb, alpha=alpha, icc=image.icc)


def plan_passes(scale: int, native_scale: int) -> tuple[Pass, ...]:
    """How often the image goes through the network, and how much the last pass is averaged down.

    x2 through an x4 network is one pass averaged by 2; x4 through an x2 network is two passes.

    Raises:
        ValueError: no number of passes gives the scale exactly.
    """
    count = 1
    while native_scale > 1 and native_scale**count < scale:
        count += 1
    reduce, rest = divmod(native_scale**count, scale)
    if not reduce or rest or native_scale % reduce:
        raise ValueError(f"a network of native scale {native_scale} cannot make scale {scale}")
    return (*[Pass(native_scale, 1)] * (count - 1), Pass(native_scale // reduce, reduce))


def cut(pixels: NDArray[np.uint8], plan: TilePlan) -> Iterator[Window]:
    """The plan's windows of `[H, W, 3]` one by one, padded to their full size."""
    for tile in plan.tiles:
        yield pad(tile.window.read(pixels), tile.window.height, tile.window.width)


def pad(pixels: NDArray[np.uint8], height: int, width: int) -> Window:
    """`[h, w, 3]` made `[height, width, 3]` by mirroring at the right and bottom edge.

    An axis too short to be mirrored repeats its last pixel.
    """
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    for axis, count in enumerate(missing):
        if count:
            mode = "reflect" if count < pixels.shape[axis] else "edge"
            widths = [(0, count if axis == at else 0) for at in range(3)]
            pixels = np.pad(pixels, widths, mode=mode)  # type: ignore[call-overload]
    return np.ascontiguousarray(pixels)


def _upscale_rgb(
    rgb: NDArray[np.uint8], passes: tuple[Pass, ...], engine: Engine, on_tile: OnTile
) -> NDArray[np.uint8]:
    window_px = engine.window_px
    while True:
        try:
            return _run_passes(rgb, passes, engine, window_px, on_tile)
        except EngineOutOfMemory:
            least_px = least_window_px(engine.halo_px, engine.multiple_px)
            if window_px <= least_px:
                raise
            window_px = max(least_px, window_px // 2)


def _run_passes(
    rgb: NDArray[np.uint8],
    passes: tuple[Pass, ...],
    engine: Engine,
    window_px: int,
    on_tile: OnTile,
) -> NDArray[np.uint8]:
    plans = _plan_all(rgb.shape[0], rgb.shape[1], passes, engine, window_px)
    total = sum(len(plan.tiles) for plan in plans)
    done = 0
    on_tile(done, total)
    for step, plan in zip(passes, plans, strict=True):
        canvas = np.empty((rgb.shape[0] * step.gain, rgb.shape[1] * step.gain, 3), np.uint8)
        windows = engine.run(cut(rgb, plan), step.reduce)
        for tile, window in zip(plan.tiles, windows, strict=True):
            kept = tile.core.within(tile.window).scaled(step.gain).read(window)
            tile.core.scaled(step.gain).write(canvas, kept)
            done += 1
            on_tile(done, total)
        rgb = canvas
    return rgb


def _plan_all(
    height: int, width: int, passes: tuple[Pass, ...], engine: Engine, window_px: int
) -> list[TilePlan]:
    plans = []
    for step in passes:
        plans.append(
            TilePlan.of(
                height,
                width,
                window_px=window_px,
                halo_px=engine.halo_px,
                multiple_px=engine.multiple_px,
            )
        )
        height, width = height * step.gain, width * step.gain
    return plans
