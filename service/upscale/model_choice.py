"""Which model upscales a picture: the best one that this machine can afford for it.

Each scale has a ladder of models, best first; a picture goes to the first rung that takes it. The
picture alone decides, never how busy the machine is: the same file gives the same bytes tomorrow.
Loads neither torch nor numpy: the front end estimates times with it.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class Rung(BaseModel):
    """One step of a scale's ladder.

    model: the registry's name. tempered_with: the faithful model that its result is mixed with, or
    "" for none. most_px: pictures of more input pixels go to the next rung; None: of any size.
    harmed_only: only pictures with compression artefacts or noise take it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    tempered_with: str = ""
    most_px: int | None = Field(default=None, ge=0)
    harmed_only: bool = False

    def takes(self, px: int, *, is_harmed: bool) -> bool:
        """Whether a picture of `px` input pixels is for this rung."""
        is_small_enough = self.most_px is None or px <= self.most_px
        return is_small_enough and (is_harmed or not self.harmed_only)


def choose_rung(ladder: Sequence[Rung], px: int, *, is_harmed: bool) -> Rung:
    """The first rung that takes a picture of `px` input pixels, or the last one.

    Raises:
        ValueError: the ladder is empty.
    """
    if not ladder:
        raise ValueError("a ladder needs a rung")
    return next((rung for rung in ladder if rung.takes(px, is_harmed=is_harmed)), ladder[-1])
