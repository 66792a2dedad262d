"""Build this machine's ladders: how large an image each model may have, by its measured speed."""

from dataclasses import dataclass
from typing import Final

from upscaled.config import Settings
from upscaled.image.harm import Harm
from upscaled.upscale import denoise
from upscaled.upscale.loop import find_gain
from upscaled.upscale.model_choice import AUTO, Rung
from upscaled.upscale.named_models import choose_model
from upscaled.upscale.post_process.steps import choose_post_processing
from upscaled.upscale.post_process.tempering import AUTO_STRENGTH, Tempering
from upscaled.upscale.speed import Speed
from upscaled.upscale.tiles import Tiling
from upscaled_models.backends.base import least_window_px
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

LARGEST_SIDE_PX: Final = 8192
"""Side of a square image: a model that takes so many pixels within the budget takes any."""

VIVID: Final = {4: ("realesrgan-x4plus",), 2: ("realesrgan-x2plus", "realesrgan-x4plus")}
"""Networks that invent texture, by scale, best first: the first that is here is taken."""

OFF: Final = "off"
"""The setting `temper` that takes every vivid result as it is."""

_HARMED_ONLY: Final = frozenset({2})
"""Scales at which a vivid network is further from the truth than the faithful one in clean
images."""

_HASH_CHARACTERS: Final = 12
"""Length of the beginning of a SHA-256 that distinguishes files, but for deliberate collisions."""

_FAITHFUL_SHARE: Final = 0.03
"""Share that the faithful network adds to the cost of a vivid one: 0.7 of 36 MFLOP for a pixel."""


@dataclass(frozen=True, slots=True)
class LadderPlan:
    """The models of one scale's ladder, before the speed of the best one is known.

    last: takes every image that comes to it. vivid: the model above it, which takes as large images
    as its speed allows; None without one.
    """

    settings: Settings
    scale: int
    last: Rung
    vivid: ModelSpec | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models that images may come to, best first, whatever their speed."""
        return (self.last.model,) if self.vivid is None else (self.vivid.name, self.last.model)

    def describe(self) -> str:
        """Describe the model files and the settings that the ladder follows from.

        Front ends compare this text across machines and versions, so it must change only if
        results can.
        """
        store = ModelStore(self.settings.models_dir)
        names = dict.fromkeys(filter(None, (*self.models, self.last.tempered_with)))
        facts = [_name_files(store.find(name)) for name in names]
        last = store.find(self.last.model)
        if last.wdn is not None:
            facts.append(f"denoise {denoise.find_strength(self.settings, last):g}")
        if self.vivid is not None or self.last.tempered_with:
            facts.append(f"temper {self.settings.temper}")
        if self.vivid is not None:
            facts.append(f"within {self.settings.auto_budget_s:g} s")
        return ", ".join(facts)

    def build(self, speed: Speed | None) -> tuple[Rung, ...]:
        """Return the ladder, best model first.

        Args:
            speed: of the vivid model; where it is not known, that model takes no image.
        """
        if self.vivid is None or speed is None:
            return (self.last,)
        is_tempered = find_strength(self.settings.temper, is_named=False) != 0
        tempered_with = self.last.model if is_tempered else ""
        tiling = self._tiling(self.vivid, tempered_with, speed)
        most_px, most_deep_px = (
            largest_px(s_per_px * (1 + _FAITHFUL_SHARE), self.settings.auto_budget_s, tiling)
            for s_per_px in (speed.s_per_px, speed.deep_s_per_px)
        )
        if most_px == 0:
            return (self.last,)
        first = Rung(
            model=self.vivid.name,
            tempered_with=tempered_with,
            most_px=most_px,
            most_deep_px=most_deep_px,
            harmed_only=self.scale in _HARMED_ONLY,
        )
        return (first, self.last)

    def _tiling(self, vivid: ModelSpec, tempered_with: str, speed: Speed) -> Tiling:
        specs, tempering = [vivid], None
        if tempered_with:
            specs.append(ModelStore(self.settings.models_dir).find(tempered_with))
            tempering = find_tempering(self.settings, self.scale, Harm())
        steps = choose_post_processing(vivid, self.settings, tempering)
        gain = find_gain(self.scale, vivid.native_scale) or self.scale
        halo_px = steps.halo_px(specs, gain)
        return Tiling(
            window_px=max(speed.window_px, least_window_px(halo_px, vivid.multiple_px)),
            halo_px=halo_px,
            multiple_px=vivid.multiple_px,
            shape_step_px=speed.shape_step_px,
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
    here = (each for each in map(store.find, VIVID[scale]) if store.path(each))
    vivid = next(here, None) if settings.auto_budget_s else None
    return LadderPlan(settings, scale, Rung(model=spec.name), vivid)


def name_rung(spec: ModelSpec, scale: int, temper: str) -> Rung:
    """Return the one rung of a model that is named: for every image, tempered only by request."""
    is_tempered = find_strength(temper, is_named=True) != 0 and not spec.keeps_colour
    faithful = find_faithful(find_gain(scale, spec.native_scale)) if is_tempered else ""
    return Rung(model=spec.name, tempered_with=faithful)


def _name_files(spec: ModelSpec) -> str:
    hashes = [spec.sha256, spec.wdn.sha256] if spec.wdn else [spec.sha256]
    return " ".join((spec.name, *(each[:_HASH_CHARACTERS] for each in hashes)))


def find_faithful(gain: int | None) -> str:
    """Return the model that enlarges `gain` times and invents nothing; "" where there is none."""
    return f"upscaled-x{gain}" if gain in (2, 4) else ""


def find_strength(temper: str, *, is_named: bool) -> float:
    """Return how much of the faithful network's result a vivid one's gets: 0 none, 1 all.

    Args:
        temper: the setting: `auto`, `off` or a number.
        is_named: the model was named: it is then taken as it is, unless the setting is a number.
    """
    if temper == OFF or (temper == AUTO and is_named):
        return 0.0
    return AUTO_STRENGTH if temper == AUTO else float(temper)


def find_tempering(settings: Settings, scale: int, harm: Harm) -> Tempering:
    """Return how a vivid result is tempered, for an image with that harm."""
    return Tempering.of(find_strength(settings.temper, is_named=False), scale, harm)


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
