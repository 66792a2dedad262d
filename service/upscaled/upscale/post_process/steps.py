"""The steps between a network's result for a window and the pixels that are kept of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from upscaled.config import Settings
from upscaled.upscale.post_process.colour_correction import CORRECTION_REACH_PX, correct_colours
from upscaled.upscale.post_process.sanity_check import is_plausible
from upscaled.upscale.post_process.tempering import TEMPER_REACH_PX, Tempering, temper
from upscaled_models.backends.base import Window
from upscaled_models.registry import ModelSpec

Check = Callable[[Window, Window], bool]
Correct = Callable[[Window, Window], Window]
Temper = Callable[[Window, Window], Window]


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """What is done with each window's result before it is kept; by default nothing.

    `check` and `correct` take the window as the network saw it, `[h, w, 3]`, and its result, of
    the same type, `[h * gain, w * gain, 3]`.

    check: whether the result can be believed. If not, the window is computed once more in float32.
    correct: the result with the source's colours, after the check. `correction_reach_px`: how many
        source pixels around a pixel it reads; every tile gets them as halo beyond the network's.
    temper: the result mixed with that of a faithful network, which is taken as it is where the
        source is flat; only where an image has a stream for one. `temper_reach_px`: how many result
        pixels around a pixel it reads; every tile gets them too.
    corrects_patterns: whether fine patterns get their mean colour back, on the finished rows.
    """

    check: Check | None = None
    correct: Correct | None = None
    correction_reach_px: int = 0
    temper: Temper | None = None
    temper_reach_px: int = 0
    corrects_patterns: bool = False


NO_POST_PROCESSING: Final = PostProcessing()


def choose_post_processing(
    spec: ModelSpec, settings: Settings, tempering: Tempering | None = None
) -> PostProcessing:
    """Check every window; correct colours: of fine patterns, and of all else where models shift it.

    What is tempered has the faithful network's colours. The setting `colour_lock` switches both
    corrections off.
    """
    steps = PostProcessing(check=is_plausible, corrects_patterns=settings.colour_lock)
    if tempering is not None:
        return replace(
            steps, temper=partial(temper, tempering=tempering), temper_reach_px=TEMPER_REACH_PX
        )
    if settings.colour_lock and not spec.keeps_colour:
        return replace(steps, correct=correct_colours, correction_reach_px=CORRECTION_REACH_PX)
    return steps
