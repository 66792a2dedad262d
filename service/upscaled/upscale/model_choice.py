"""Choose the model that upscales an image: the best one that this machine can afford for it.

Each scale has a ladder of models, best first; an image goes to the first rung that accepts it. The
image alone decides, never how busy the machine is: the same file gives the same bytes tomorrow.

    x4   realesrgan-x4plus, tempered by upscaled-x4-faithful; then upscaled-x4, which was trained
         on the results of that; then upscaled-x4-faithful
    x2   harmed images: realesrgan-x2plus, or realesrgan-x4plus averaged down by 2, tempered by
         upscaled-x2-faithful; then upscaled-x2, of any size; clean ones: upscaled-x2-faithful

A rung accepts images up to as many input pixels as its model does within the setting
`auto_budget_s` (`upscaled.upscale.ladder`). Clean images at x2 stay with the faithful network: it
is nearer to the truth there. realesr-general-x4v3 is on no rung: upscaled-x4 is
its network, trained further, and nearer to the truth by more than a decibel.
Loads neither torch nor numpy: the front end estimates times with it.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, Field

AUTO: Final = "auto"
"""The name, in settings and requests, that leaves the choice of the model to the ladder."""


class Rung(BaseModel, frozen=True, extra="forbid"):
    """One step of a scale's ladder.

    model: the registry's name. tempered_with: the faithful model that its result is mixed with, or
    "" for none. most_px: images of more input pixels go to the next rung; None: of any size.
    most_deep_px: the same for images of 16 bits a channel, which go through float32.
    harmed_only: for images with compression artefacts or noise only.
    """

    model: str
    tempered_with: str = ""
    most_px: int | None = Field(default=None, ge=0)
    most_deep_px: int | None = Field(default=None, ge=0)
    harmed_only: bool = False

    def accepts(self, px: int, *, is_harmed: bool, is_deep: bool = False) -> bool:
        """Return whether an image of `px` input pixels is for this rung."""
        most_px = self.most_deep_px if is_deep else self.most_px
        is_small_enough = most_px is None or px <= most_px
        return is_small_enough and (is_harmed or not self.harmed_only)

    def describe(self) -> str:
        """Describe the rung in a few words, for logs and people."""
        size = "any size" if self.most_px is None else f"up to {self.most_px} input pixels"
        tempered = f" tempered with {self.tempered_with}" if self.tempered_with else ""
        return f"{self.model}{tempered}: {'harmed, ' if self.harmed_only else ''}{size}"


class AutoChoice(BaseModel, frozen=True, extra="forbid"):
    """Ladders by which `auto` chooses models, and the plans behind them, for each scale.

    plans: the models and settings that a ladder follows from (`LadderPlan.describe`), which must be
    the same on machines that share their requests. ladders: best model first, with bounds that
    follow from the speed of a machine.
    """

    plans: dict[int, str]
    ladders: dict[int, tuple[Rung, ...]]


def choose_rung(ladder: Sequence[Rung], px: int, *, is_harmed: bool, is_deep: bool = False) -> Rung:
    """Choose the first rung that accepts an image of `px` input pixels, or the last one."""
    if not ladder:
        raise ValueError("a ladder needs a rung")
    for rung in ladder:
        if rung.accepts(px, is_harmed=is_harmed, is_deep=is_deep):
            return rung
    return ladder[-1]


def rungs_for(ladder: Sequence[Rung], px: int, *, is_deep: bool = False) -> tuple[Rung, ...]:
    """Return the rungs that may accept an image of that size: two where harm counts.

    The result depends on them beside the image itself, and not on their bounds, which are left out.
    """
    chosen = (
        choose_rung(ladder, px, is_harmed=is_harmed, is_deep=is_deep) for is_harmed in (True, False)
    )
    return tuple(
        dict.fromkeys(
            rung.model_copy(update={"most_px": None, "most_deep_px": None}) for rung in chosen
        )
    )
