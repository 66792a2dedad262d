"""Which model upscales a picture: the best one that this machine can afford for it.

Each scale has a ladder of models, best first; a picture goes to the first rung that takes it. The
picture alone decides, never how busy the machine is: the same file gives the same bytes tomorrow.

    x4   realesrgan-x4plus, tempered by upscaled-x4; then upscaled-x4
    x2   harmed pictures: realesrgan-x2plus, or realesrgan-x4plus averaged down by 2, tempered by
         upscaled-x2; then upscaled-x2

A rung takes pictures up to as many input pixels as its model does within the setting
`auto_budget_s` (`upscaled.upscale.ladder`). Clean pictures at x2 stay with the faithful network: it
is nearer to the truth there, and much faster. realesr-general-x4v3 is on no rung: x4plus tempered
is more natural and nearer to the truth, and upscaled-x4 nearer still and three times as fast.
Loads neither torch nor numpy: the front end estimates times with it.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

OFF: Final = "off"
AUTO: Final = "auto"

VIVID: Final = {4: ("realesrgan-x4plus",), 2: ("realesrgan-x2plus", "realesrgan-x4plus")}
"""Networks that invent texture, by scale, best first: the first that is here is taken."""

_HARMED_ONLY: Final = frozenset({2})
"""Scales at which a vivid network is further from the truth than the faithful one in clean
pictures."""


class Rung(BaseModel):
    """One step of a scale's ladder.

    model: the registry's name. tempered_with: the faithful model that its result is mixed with, or
    "" for none. most_px: pictures of more input pixels go to the next rung; None: of any size.
    most_deep_px: the same for pictures of 16 bits a channel, which go through float32.
    harmed_only: only pictures with compression artefacts or noise take it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    tempered_with: str = ""
    most_px: int | None = Field(default=None, ge=0)
    most_deep_px: int | None = Field(default=None, ge=0)
    harmed_only: bool = False

    def takes(self, px: int, *, is_harmed: bool, is_deep: bool = False) -> bool:
        """Whether a picture of `px` input pixels is for this rung."""
        most_px = self.most_deep_px if is_deep else self.most_px
        is_small_enough = most_px is None or px <= most_px
        return is_small_enough and (is_harmed or not self.harmed_only)

    def describe(self) -> str:
        """One rung in a few words, for logs and people."""
        size = "any size" if self.most_px is None else f"up to {self.most_px} input pixels"
        tempered = f" tempered with {self.tempered_with}" if self.tempered_with else ""
        return f"{self.model}{tempered}: {'harmed, ' if self.harmed_only else ''}{size}"


def choose_rung(ladder: Sequence[Rung], px: int, *, is_harmed: bool, is_deep: bool = False) -> Rung:
    """The first rung that takes a picture of `px` input pixels, or the last one.

    Raises:
        ValueError: the ladder is empty.
    """
    if not ladder:
        raise ValueError("a ladder needs a rung")
    for rung in ladder:
        if rung.takes(px, is_harmed=is_harmed, is_deep=is_deep):
            return rung
    return ladder[-1]


def rungs_for(ladder: Sequence[Rung], px: int, *, is_deep: bool = False) -> tuple[Rung, ...]:
    """The rungs that may take a picture of that size, without their bounds: two where harm counts.

    What its result depends on beside the picture itself.
    """
    chosen = (
        choose_rung(ladder, px, is_harmed=is_harmed, is_deep=is_deep) for is_harmed in (True, False)
    )
    return tuple(
        dict.fromkeys(
            rung.model_copy(update={"most_px": None, "most_deep_px": None}) for rung in chosen
        )
    )


def find_faithful(gain: int | None) -> str:
    """The model that enlarges `gain` times and invents nothing; "" where there is none."""
    return f"upscaled-x{gain}" if gain in (2, 4) else ""


def build_ladder(
    scale: int, vivid: str, bounds_px: tuple[int | None, int | None], temper: str
) -> tuple[Rung, ...]:
    """A scale's ladder.

    Args:
        vivid: the model of its first rung; "" for none.
        bounds_px: the most input pixels of its pictures, and of those of 16 bits a channel.
        temper: the setting.
    """
    faithful = find_faithful(scale)
    most_px, most_deep_px = bounds_px
    last = Rung(model=faithful)
    if not vivid or most_px == 0:
        return (last,)
    first = Rung(
        model=vivid,
        tempered_with="" if find_strength(temper, is_named=False) == 0 else faithful,
        most_px=most_px,
        most_deep_px=most_deep_px,
        harmed_only=scale in _HARMED_ONLY,
    )
    return (first, last)


def find_strength(temper: str, *, is_named: bool) -> float | None:
    """How much of the faithful network's result a vivid one's gets: 0 none, 1 all; None: as
    measured best.

    Args:
        temper: the setting: `auto`, `off` or a number.
        is_named: the model was asked for by name: it is then taken as it is, unless tempering was
            asked for too.
    """
    if temper == OFF or (temper == AUTO and is_named):
        return 0.0
    return None if temper == AUTO else float(temper)
