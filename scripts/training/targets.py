"""Read and draw the training targets of a student: small pictures with the teacher's results."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from scripts.training.degradation import degrade
from upscaled_models.quantise.drawing import draw_page

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """A small picture `[h, w, 3]` and its target `[h*s, w*s, 3]`, both uint8 RGB."""

    small: Pixels
    large: Pixels


@dataclass(frozen=True)
class Targets:
    """The teacher's results for photos, and drawn pages, whose target is the original."""

    photos: tuple[Target, ...]
    pages: tuple[Pixels, ...]
    scale: int

    def draw_batch(
        self, rng: Generator, *, count: int, patch_px: int, page_share: float
    ) -> tuple[Tensor, Tensor]:
        """Draw patches: `[n, 3, p, p]` and `[n, 3, p*s, p*s]` float32 in 0..1."""
        pairs = [self._draw_pair(rng, patch_px, page_share) for _ in range(count)]
        smalls, larges = zip(*pairs, strict=True)
        return _stack(smalls), _stack(larges)

    def _draw_pair(self, rng: Generator, patch_px: int, page_share: float) -> tuple[Pixels, Pixels]:
        if rng.random() < page_share:
            target = self._draw_page(rng, patch_px)
        else:
            target = self.photos[int(rng.integers(len(self.photos)))]
        top, left = (int(rng.integers(0, side - patch_px + 1)) for side in target.small.shape[:2])
        end_row, end_column, scale = top + patch_px, left + patch_px, self.scale
        small = target.small[top:end_row, left:end_column]
        large = target.large[top * scale : end_row * scale, left * scale : end_column * scale]
        turns, is_flipped = int(rng.integers(4)), rng.random() < 0.5
        return _turn(small, turns, is_flipped), _turn(large, turns, is_flipped)

    def _draw_page(self, rng: Generator, patch_px: int) -> Target:
        page = self.pages[int(rng.integers(len(self.pages)))]
        side = (patch_px + 8) * self.scale
        top, left = (int(rng.integers(0, length - side + 1)) for length in page.shape[:2])
        truth = np.ascontiguousarray(page[top : top + side, left : left + side])
        small, _ = degrade(truth, self.scale, rng)
        return Target(small, truth)


def read_targets(folder: Path, *, scale: int, pages: int, seed: int) -> Targets:
    """Read every target that `scripts/train teach` writes into `folder`.

    Raises `ValueError` where it holds none.
    """
    photos = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            photos.append(Target(stored["small"], stored["large"]))
    if not photos:
        raise ValueError(f"{folder} holds no target")
    drawn = tuple(draw_page(np.random.default_rng([seed, number])) for number in range(pages))
    return Targets(tuple(photos), drawn, scale)


def _turn(pixels: Pixels, turns: int, is_flipped: bool) -> Pixels:
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if is_flipped else turned)


def _stack(patches: tuple[Pixels, ...]) -> Tensor:
    stacked = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255
    return stacked.contiguous(memory_format=torch.channels_last)
