"""Build this machine's ladders: how large an image each model may have, by its measured speed.

A scale's ladder has up to three rungs: the vivid network, where it is here, tempered by the
faithful one; the default network; and the faithful one, at x4 for what those are too slow for, at
x2 for clean images. At x2 the default network is the fastest: it takes harmed images of any size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from upscaled.config import Settings
from upscaled.image.harm import Harm
from upscaled.upscale.band_plan import BandSizes
from upscaled.upscale.model_choice import AUTO, Rung
from upscaled.upscale.named_models import choose_model, find_denoise
from upscaled.upscale.passes import find_gain
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.tempering import AUTO_STRENGTH, Tempering
from upscaled.upscale.speed import Speed
from upscaled.upscale.tiles import Tiling
from upscaled_models.backends.base import least_window_px
from upscaled_models.registry import ModelSpec, read_default_models
from upscaled_models.store import ModelStore

LARGEST_SIDE_PX: Final = 8192
"""Side of a square image: a model that fits it into the budget gets images of any size."""

VIVID: Final = {4: ("realesrgan-x4plus",), 2: ("realesrgan-x2plus", "realesrgan-x4plus")}
"""Networks that invent texture, by scale, best first: the first that is here is used."""

OFF: Final = "off"
"""The setting `temper` that leaves every vivid result as it is."""

_HARMED_ONLY: Final = frozenset({2})
"""Scales at which other networks are further from the truth than the faithful one in clean
images."""

_HASH_CHARACTERS: Final = 12
"""Length of the beginning of a SHA-256 that distinguishes files, but for deliberate collisions."""

_FAITHFUL_MFLOP: Final = 0.72
_VIVID_MFLOP: Final = 36.0
_DEFAULT_MFLOP: Final = 2.43
"""Arithmetic for an input pixel: tempering adds the faithful network's to the other one's."""


@dataclass(frozen=True, slots=True)
class LadderPlan:
    """The models of one scale's ladder, before the speeds of the slow ones are known.

    last: takes every image that comes to it. default, vivid: the models above it, which take as
    large images as their speeds allow; None without one.
    """

    settings: Settings
    scale: int
    last: Rung
    default: ModelSpec | None = None
    vivid: ModelSpec | None = None

    @property
    def bounded(self) -> tuple[ModelSpec, ...]:
        """Return the models whose speeds bound the images that they get, best first."""
        default = None if self.scale in _HARMED_ONLY else self.default
        return tuple(spec for spec in (self.vivid, default) if spec is not None)

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the models that stay in memory: all but the vivid one, which needs most of it."""
        default = () if self.default is None else (self.default.name,)
        return (*default, self.last.model)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models that images may come to, best first, whatever their speed."""
        above = (spec.name for spec in (self.vivid, self.default) if spec is not None)
        return (*above, self.last.model)

    def describe(self) -> str:
        """Describe the model files and the settings that the ladder follows from.

        Front ends compare this text across machines and versions, so it must change only if
        results can.
        """
        store = ModelStore(self.settings.models_dir)
        names = dict.fromkeys(filter(None, (*self.models, self.last.tempered_with)))
        parts = [_name_files(store.find(name)) for name in names]
        last = store.find(self.last.model)
        if last.wdn is not None:
            parts.append(f"denoise {find_denoise(self.settings, last):g}")
        if self.bounded or self.last.tempered_with:
            parts.append(f"temper {self.settings.temper}")
        if self.bounded:
            parts.append(f"within {self.settings.auto_budget_s:g} s")
        return ", ".join(parts)

    def build(self, speeds: Mapping[str, Speed]) -> tuple[Rung, ...]:
        """Return the ladder by the speeds of the bounded models, by name, best model first.

        Where its speed is not known, the vivid model takes no image, and the default one every
        image.
        """
        rungs = (self._build_vivid(speeds), self._build_default(speeds), self.last)
        return tuple(rung for rung in rungs if rung is not None)

    def _build_vivid(self, speeds: Mapping[str, Speed]) -> Rung | None:
        if self.vivid is None or self.vivid.name not in speeds:
            return None
        is_tempered = find_tempering_strength(self.settings.temper, is_named=False) != 0
        rung = Rung(
            model=self.vivid.name,
            tempered_with=find_faithful(self.scale) if is_tempered else "",
            harmed_only=self.scale in _HARMED_ONLY,
        )
        return self._bound(rung, self.vivid, speeds[rung.model], _VIVID_MFLOP)

    def _build_default(self, speeds: Mapping[str, Speed]) -> Rung | None:
        """Build the default model's rung: as where it is named, tempered only by a number."""
        if self.default is None:
            return None
        rung = name_rung(self.default, self.scale, self.settings.temper)
        if self.scale in _HARMED_ONLY:
            return rung.model_copy(update={"harmed_only": True})
        if rung.model not in speeds:
            return rung
        return self._bound(rung, self.default, speeds[rung.model], _DEFAULT_MFLOP)

    def _bound(self, rung: Rung, spec: ModelSpec, speed: Speed, mflop: float) -> Rung | None:
        """Bound a rung to the images that take its model, of so many MFLOP a pixel, the budget."""
        share = 1 + (_FAITHFUL_MFLOP / mflop if rung.tempered_with else 0)
        tiling = self._tiling(spec, rung.tempered_with, speed)
        budget_s = self.settings.auto_budget_s
        most_px = largest_px(speed.s_per_px * share, budget_s, tiling)
        most_deep_px = largest_px(
            speed.deep_s_per_px * share, budget_s, replace(tiling, bands=None)
        )
        if most_px == 0:
            return None
        return rung.model_copy(update={"most_px": most_px, "most_deep_px": most_deep_px})

    def _tiling(self, spec: ModelSpec, tempered_with: str, speed: Speed) -> Tiling:
        specs, tempering = [spec], None
        if tempered_with:
            specs.append(ModelStore(self.settings.models_dir).find(tempered_with))
            tempering = find_tempering(self.settings, self.scale, Harm())
        steps = choose_post_processing(spec, self.settings, tempering)
        gain = find_gain(self.scale, spec.native_scale) or self.scale
        halo_px = steps.halo_px(specs, gain)
        window_px = max(speed.window_px, least_window_px(halo_px, spec.multiple_px))
        in_bands = speed.computes_bands and not tempered_with
        return Tiling(
            window_px=window_px,
            halo_px=halo_px,
            multiple_px=spec.multiple_px,
            shape_step_px=speed.shape_step_px,
            bands=BandSizes.of(spec, halo_px, window_px) if in_bands else None,
        )


def plan_ladder(settings: Settings, scale: int, named_by: str | None = None) -> LadderPlan:
    """Choose the models of a scale's ladder: the one that is named, or the best that are here.

    Args:
        named_by: what gave the settings their model for this scale, where it was not its variable.

    Raises:
        UnknownModel: the settings name a model that does not exist.
        ModelRefused: they name one with which x2 and x4 cannot both be made.
        SettingsError: the file of the model is not here.
    """
    store = ModelStore(settings.models_dir)
    spec = choose_model(settings, scale, store, named_by=named_by)
    if settings.model_for(scale) != AUTO:
        return LadderPlan(settings, scale, name_rung(spec, scale, settings.temper))
    last = Rung(model=find_faithful(scale))
    if not settings.auto_budget_s:
        return LadderPlan(settings, scale, last)
    default = None if spec.name == last.model else spec
    here = (each for each in map(store.find, VIVID[scale]) if store.path(each))
    return LadderPlan(settings, scale, last, default, next(here, None))


def name_rung(spec: ModelSpec, scale: int, temper: str) -> Rung:
    """Return the one rung of a model that is named: for every image, tempered only by request."""
    is_tempered = find_tempering_strength(temper, is_named=True) != 0 and not spec.keeps_colour
    faithful = find_faithful(find_gain(scale, spec.native_scale)) if is_tempered else ""
    return Rung(model=spec.name, tempered_with=faithful)


def _name_files(spec: ModelSpec) -> str:
    return " ".join((spec.name, *(each[:_HASH_CHARACTERS] for each in spec.hashes)))


def find_faithful(gain: int | None) -> str:
    """Return the model that enlarges `gain` times and invents nothing; "" where there is none.

    Where its name is a second one, the first: so no file is loaded under two names.
    """
    name = f"upscaled-x{gain}-faithful"
    return next((spec.weights_key for spec in read_default_models() if spec.name == name), "")


def find_tempering_strength(temper: str, *, is_named: bool) -> float:
    """Return how much of the faithful network's result a vivid one's gets: 0 none, 1 all.

    temper: the setting: `auto`, `off` or a number. is_named: the model was named: it is then taken
    as it is, unless the setting is a number.
    """
    if temper == OFF or (temper == AUTO and is_named):
        return 0.0
    return AUTO_STRENGTH if temper == AUTO else float(temper)


def find_tempering(settings: Settings, scale: int, harm: Harm) -> Tempering:
    """Return how a vivid result is tempered, for an image with that harm."""
    return Tempering.of(find_tempering_strength(settings.temper, is_named=False), scale, harm)


def largest_px(s_per_px: float, budget_s: float, tiling: Tiling) -> int | None:
    """Return the pixels of the largest image whose windows take at most `budget_s`; None: any.

    For a square one, halos included: a long narrow one of as many pixels takes about as long.
    """
    if tiling.count_px(LARGEST_SIDE_PX, LARGEST_SIDE_PX) * s_per_px <= budget_s:
        return None
    fits_px, exceeds_px = 0, LARGEST_SIDE_PX
    while exceeds_px - fits_px > 1:
        middle_px = (fits_px + exceeds_px) // 2
        if tiling.count_px(middle_px, middle_px) * s_per_px <= budget_s:
            fits_px = middle_px
        else:
            exceeds_px = middle_px
    return fits_px**2
