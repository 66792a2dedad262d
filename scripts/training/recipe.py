"""The recipe of a training run: one frozen table, stored with every checkpoint."""

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Recipe:
    """Every number that decides the outcome of a run, besides the photos themselves."""

    scale: int
    features: int = 48
    layers: int = 16
    fold: int = 1
    """Squares of this many pixels a side become channels first; see `PlainNet`."""
    seed: int = 1
    steps: int = 12000
    rate: float = 1e-3
    warmup_steps: int = 200
    cooldown_share: float = 0.4
    """The last part of the run, in which the rate falls along a half cosine to 1/100."""
    ema_decay: float = 0.999
    clip_norm: float = 0.5
    batch: int = 12
    patch_px: int = 40
    """Side of the small input patch; its truth is `scale` times as large."""
    pages: int = 160
    """Number of pages of text and line art that are drawn."""
    page_share: float = 0.1
    unharmed_share: float = 0.34
    """Share of the inputs that are only made small."""
    acutance_weight: float = 0.28
    """Weight of an error in local contrast beside plain error: this sets crispness."""
    harmed_acutance_weight: float = 0.25
    """The same for inputs with noise or compression, where crispness costs more error."""
    fidelity_weight: float = 0.8
    """Weight of an error in the colours of the result, made small again."""
    flicker_weight: float = 1.0
    """Weight of an error that alternates from pixel to pixel, on top of its plain error."""
    sharpen_amount: float = 0.5
    """Unsharp mask on the truth before it is compared with; 0 leaves the truth as it is."""
    compressed_sharpen_amount: float = 0.85
    """The same for inputs that were only compressed: what is sharpened there is partly invented."""
    noisy_sharpen_amount: float = 0.85
    """The same for inputs with blur and noise."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`: a linear rise, a plateau, then the cooldown."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        start = self.steps * (1 - self.cooldown_share)
        if step < start:
            return self.rate
        done = min(1.0, (step - start) / max(1.0, self.steps - start))
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


AnyRecipe = TypeVar("AnyRecipe", bound="DataclassInstance")


def override(recipe: AnyRecipe, assignments: list[str]) -> AnyRecipe:
    """Apply `name=value` texts; raises `ValueError` for an unknown name."""
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in kinds:
            raise ValueError(f"a recipe has no {name!r}; it has {', '.join(kinds)}")
        recipe = replace(recipe, **{name: kinds[name](value)})
    return recipe
