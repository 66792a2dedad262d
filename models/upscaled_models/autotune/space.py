"""The space of a search: the candidates and sizes to try for one model, and the effort allowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from upscaled_models.autotune.candidates import Candidate
from upscaled_models.backends.base import LoadedModel, least_window_px, round_up
from upscaled_models.backends.device import Device
from upscaled_models.backends.torch.engine import SHAPE_STEP_PX

WINDOW_RATIOS: Final = (1.0, 2 / 3, 1 / 2, 4 / 3)
"""Window sides to try, by the usual one, the likeliest first."""

MAX_BATCH_S: Final = 25.0
"""Longest that one batch may take, for a cancelled image goes on until then. x4plus in 8 bits takes
11 s for 512x512 on two quiet cores and 16 s on busy ones; in windows of 352 px, halos would make
every picture that does not fit into one of them take half as long again and more."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Limits on the time of a search, and on that of the batches that it chooses.

    budget_s: for one model. max_wait_s: how long an image should wait at most for the batch of
    another that has just begun; sizes that keep to it win over faster ones that do not, and a model
    too slow for any of them is not held to it.
    """

    budget_s: float
    max_wait_s: float


START: Final = Effort(budget_s=2.7, max_wait_s=2.0)
"""Effort of a start on a CPU, where a default installation opens three small models. With a wait of
0.25 s two fast cores took windows of 256 px for general-x4v3, which keep 54 % of what they compute;
those of 512 px keep 75 %, and take 1.5 s."""

CUDA_START: Final = Effort(budget_s=30.0, max_wait_s=0.08)
"""Effort of a start on a GPU: compiling our kernel in both types takes about 15 s, and windows of
large networks fill a GPU by themselves."""

IDLE: Final = Effort(budget_s=inf, max_wait_s=2.0)
CUDA_IDLE: Final = Effort(budget_s=inf, max_wait_s=0.08)
"""Efforts without a limit of time: of `upscaled tune`, and of a worker without requests."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes to try. windows_px: sides, the likeliest first. batches: windows at a time."""

    windows_px: tuple[int, ...]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The candidates (the likeliest first) and sizes that may be chosen for one model.

    reference: computes in float32. is_slow: whether a window takes seconds.
    """

    reference: Candidate
    candidates: Sequence[Candidate]
    sizes: Sizes
    is_slow: bool = False


def sizes_around(
    window_px: int, halo_px: int, step_px: int, *, is_fixed: bool, batches: tuple[int, ...]
) -> Sizes:
    """List windows to try around the usual one; that one alone if it `is_fixed`."""
    if is_fixed:
        return Sizes((window_px,), batches)
    least_px = round_up(least_window_px(halo_px, step_px) + halo_px, step_px)
    sides = [round_up(round(window_px * ratio), step_px) for ratio in WINDOW_RATIOS]
    return Sizes(tuple(dict.fromkeys(side for side in sides if side >= least_px)), batches)


def short_enough_px(sizes: Sizes, ns_per_px: float) -> int:
    """Return the likeliest window that ends soon enough after its image is cancelled."""
    short = [px for px in sizes.windows_px if ns_per_px * 1e-9 * px**2 <= MAX_BATCH_S]
    return short[0] if short else sizes.windows_px[0]


def sizes_for(model: LoadedModel, device: Device, *, is_fixed: bool) -> Sizes:
    batches: tuple[int, ...] = (1,) if device.threads <= 4 else (1, 4)
    if device.is_cuda:
        batches = (1, 2, 4, 8)
    spec, window_px = model.spec, model.window_px
    step_px = round_up(SHAPE_STEP_PX, spec.multiple_px)
    return sizes_around(window_px, spec.halo_px, step_px, is_fixed=is_fixed, batches=batches)
