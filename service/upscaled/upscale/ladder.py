"""The ladders of this machine: how large a picture may be for each model, by its measured speed."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from upscaled.config import Settings
from upscaled.upscale.engines import choose_model
from upscaled.upscale.loop import find_gain
from upscaled.upscale.model_choice import (
    AUTO,
    VIVID,
    Rung,
    build_ladder,
    find_faithful,
    find_strength,
)
from upscaled.upscale.post_process.colour_correction import CORRECTION_REACH_PX
from upscaled.upscale.post_process.tempering import TEMPER_REACH_PX
from upscaled.upscale.speed import Speed
from upscaled.upscale.tiles import count_window_px
from upscaled_models.backends.base import least_window_px
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

LARGEST_SIDE_PX: Final = 8192
"""Of a square picture: what takes so many pixels within the budget takes any."""

_FAITHFUL_SHARE: Final = 0.03
"""What the faithful network adds to the cost of a vivid one: 0.7 of 36 MFLOP for a pixel."""

FindSpeed = Callable[[ModelSpec], Speed | None]
"""The speed of a model, measured now if need be; None where that must not be done."""

_log = logging.getLogger(__name__)


def find_ladder(
    settings: Settings, scale: int, find_speed: FindSpeed, asked_by: str | None = None
) -> tuple[Rung, ...]:
    """The ladder of a scale: the model that the settings name, or the best ones that are here.

    Args:
        find_speed: asked only for models whose bounds depend on it. One that it does not know takes
            no picture.
        asked_by: what gave the settings their model for this scale, where it was not its variable.

    Raises:
        UnknownModel: the settings name a model that does not exist.
        ModelRefused: they name one with which x2 and x4 cannot both be made.
        SettingsError: the file of the model is not here.
    """
    store = ModelStore(settings.models_dir)
    spec, _ = choose_model(settings, scale, store, asked_by=asked_by)
    if (settings.model_x2 if scale == 2 else settings.model_x4) != AUTO:
        return (name_rung(spec, scale, settings.temper),)
    vivid = next((each for each in map(store.find, VIVID[scale]) if store.path(each)), None)
    if vivid is None or not settings.auto_budget_s:
        return build_ladder(scale, "", (0, 0), settings.temper)
    speed = find_speed(vivid)
    bounds = (0, 0) if speed is None else _find_bounds(vivid, speed, scale, settings.auto_budget_s)
    return build_ladder(scale, vivid.name, bounds, settings.temper)


def ladder_models(settings: Settings, scales: tuple[int, ...]) -> tuple[str, ...]:
    """The models that pictures may come to, however fast they are here.

    Raises:
        as `find_ladder`.
    """

    def assume(spec: ModelSpec) -> Speed:
        return Speed(s_per_px=1e-12, deep_s_per_px=1e-12, window_px=spec.halo_px, shape_step_px=1)

    ladders = (find_ladder(settings, scale, assume) for scale in scales)
    return tuple(dict.fromkeys(rung.model for ladder in ladders for rung in ladder))


def name_rung(spec: ModelSpec, scale: int, temper: str) -> Rung:
    """The one rung of a model that was asked for by name: every picture, tempered only where that
    was asked for too.
    """
    strength = find_strength(temper, is_named=True)
    is_vivid = strength != 0 and not spec.keeps_colour
    faithful = find_faithful(find_gain(scale, spec.native_scale)) if is_vivid else ""
    return Rung(model=spec.name, tempered_with=faithful)


def largest_px(
    s_per_px: float,
    budget_s: float,
    *,
    window_px: int,
    halo_px: int,
    multiple_px: int,
    shape_step_px: int,
) -> int | None:
    """The largest picture whose windows take at most `budget_s`, in pixels; None: any.

    For a square one, halos included: a long narrow one of as many pixels takes about as long.
    """
    window_px = max(window_px, least_window_px(halo_px, multiple_px))

    def takes_s(side_px: int) -> float:
        windows_px = count_window_px(
            side_px,
            side_px,
            window_px=window_px,
            halo_px=halo_px,
            multiple_px=multiple_px,
            shape_step_px=shape_step_px,
        )
        return windows_px * s_per_px

    if takes_s(LARGEST_SIDE_PX) <= budget_s:
        return None
    fits_px, exceeds_px = 0, LARGEST_SIDE_PX
    while exceeds_px - fits_px > 1:
        middle_px = (fits_px + exceeds_px) // 2
        if takes_s(middle_px) <= budget_s:
            fits_px = middle_px
        else:
            exceeds_px = middle_px
    return fits_px**2


def _find_bounds(
    spec: ModelSpec, speed: Speed, scale: int, budget_s: float
) -> tuple[int | None, int | None]:
    """Most input pixels of a picture, and of one of 16 bits a channel."""
    halo_px = spec.halo_px + max(CORRECTION_REACH_PX, -(-TEMPER_REACH_PX // scale))

    def bound(s_per_px: float) -> int | None:
        return largest_px(
            s_per_px * (1 + _FAITHFUL_SHARE),
            budget_s,
            window_px=speed.window_px,
            halo_px=halo_px,
            multiple_px=spec.multiple_px,
            shape_step_px=speed.shape_step_px,
        )

    return bound(speed.s_per_px), bound(speed.deep_s_per_px)


def log_ladders(ladders: Mapping[int, tuple[Rung, ...]]) -> None:
    """Say which pictures go to which model."""
    for scale, ladder in ladders.items():
        for rung in ladder:
            _log.info("x%d: %s", scale, rung.describe())
