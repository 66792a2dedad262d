"""Make the batch of a step: drawn from the seed and the step's number alone, so a run can
resume."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from scripts.training.degradation import Harm, degrade
from scripts.training.pictures import Pictures
from scripts.training.recipe import Recipe

MARGIN_PX = 8
"""Margin cut from a degraded patch: its border depends on mirrored pixels, and without it JPEG's
8x8 grid would always start at the patch's corner."""


AHEAD = 6
"""Batches made ahead of the step."""


@dataclass(frozen=True)
class Batch:
    """Inputs and truths, uint8 `[n, 3, p, p]` and `[n, 3, p*s, p*s]`, and each input's `Harm`."""

    inputs: Tensor
    truths: Tensor
    harms: Tensor


@dataclass(frozen=True)
class Batches:
    """Item `step` is that step's batch."""

    pictures: Pictures
    recipe: Recipe

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.recipe.seed, step])
        pairs = [draw_pair(self.pictures, self.recipe, rng) for _ in range(self.recipe.batch)]
        inputs, truths, harms = zip(*pairs, strict=True)
        return Batch(_stack(inputs), _stack(truths), torch.tensor(harms))


def draw_pair(
    pictures: Pictures, recipe: Recipe, rng: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Harm]:
    """Draw an input patch and its truth, flipped and rotated at random, and the input's harm."""
    scale, patch_px = recipe.scale, recipe.patch_px
    pool = pictures.drawn if rng.random() < recipe.page_share else pictures.photos
    picture = pool[int(rng.integers(0, len(pool)))]
    cut = _turn(_cut(picture, (patch_px + MARGIN_PX) * scale, rng), rng)
    small, harm = degrade(cut, scale, rng, recipe.unharmed_share)
    top, left = (int(value) for value in rng.integers(0, MARGIN_PX + 1, 2))
    window = (slice(top, top + patch_px), slice(left, left + patch_px))
    truth = cut[top * scale :, left * scale :][: patch_px * scale, : patch_px * scale]
    return small[window], truth, harm


def batches_from(pictures: Pictures, recipe: Recipe, first_step: int) -> Iterator[Batch]:
    """Yield the batches of steps `first_step` to the recipe's last, made ahead by one thread.

    A thread, not a process: codecs and resizing release the interpreter's lock, and OpenCV's own
    threads do not survive a fork.
    """
    batches = Batches(pictures, recipe)
    with ThreadPoolExecutor(1) as maker:
        steps = iter(range(first_step, recipe.steps))
        ahead = deque(maker.submit(batches.__getitem__, step) for step in islice(steps, AHEAD))
        while ahead:
            batch = ahead.popleft().result()
            ahead.extend(maker.submit(batches.__getitem__, step) for step in islice(steps, 1))
            yield batch


def _cut(picture: NDArray[np.uint8], side_px: int, rng: Generator) -> NDArray[np.uint8]:
    top = int(rng.integers(0, picture.shape[0] - side_px + 1))
    left = int(rng.integers(0, picture.shape[1] - side_px + 1))
    return picture[top : top + side_px, left : left + side_px]


def _turn(patch: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    turned = np.rot90(patch, int(rng.integers(0, 4)))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def _stack(patches: tuple[NDArray[np.uint8], ...]) -> Tensor:
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous()
