"""Read and draw the training targets of a student: small pictures with the teacher's results."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from scripts.training.batches import MARGIN_PX
from scripts.training.degradation import Harm, degrade
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.tracks import make_clean

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """A small picture with the two pictures that a student learns from, all uint8 RGB.

    small: `[h, w, 3]`. large: the teacher's result, `[h*s, w*s, 3]`, for colour and structure.
    truth: the photo itself, of the same size, for texture. harm: what was done to the small one.
    """

    small: Pixels
    large: Pixels
    truth: Pixels
    harm: Harm


@dataclass(frozen=True)
class Batch:
    """Patches of a step, float32 in 0..1.

    small: `[n, 3, p, p]`. target, reference: `[n, 3, p*s, p*s]`: colour and structure come from
    the one, features and what the discriminator takes for real from the other. is_harmed: `[n]`.
    is_page: `[n]`, those that were cut from drawn pages.
    """

    small: Tensor
    target: Tensor
    reference: Tensor
    is_harmed: Tensor
    is_page: Tensor


@dataclass(frozen=True)
class Targets:
    """The teacher's results for photos; and pictures whose target is the original.

    pages: drawn ones. truths: photos, which may be none.
    """

    photos: tuple[Target, ...]
    pages: tuple[Pixels, ...]
    scale: int
    truths: tuple[Pixels, ...] = ()

    def draw_batch(
        self,
        rng: Generator,
        *,
        count: int,
        patch_px: int,
        page_share: float,
        truth_share: float,
        photo_share: float = 0.0,
        unharmed_share: float | None = None,
    ) -> Batch:
        """Draw the patches of a step.

        Args:
            page_share, photo_share: of the patches, those that are cut from pages and from truths.
            unharmed_share: of those of truths; see `degrade`.
            truth_share: of the harmed pictures, the share whose reference is the truth; that of the
                others is the teacher's result. A picture without harm always has the truth.
        """
        chosen = []
        for _ in range(count):
            kind = rng.random()
            if kind < page_share:
                target = self._cut_truth(self.pages, rng, patch_px)
            elif kind < page_share + photo_share:
                target = self._cut_truth(self.truths, rng, patch_px, unharmed_share)
            else:
                target = self.photos[int(rng.integers(len(self.photos)))]
            cut = self._cut(target, rng, patch_px, truth_share)
            chosen.append((*cut, target.harm, kind < page_share))
        small, large, reference, harms, is_page = zip(*chosen, strict=True)
        is_harmed = torch.tensor([harm != Harm.NONE for harm in harms])
        return Batch(
            small=_stack(small),
            target=_stack(large),
            reference=_stack(reference),
            is_harmed=is_harmed,
            is_page=torch.tensor(is_page),
        )

    def _cut(
        self, target: Target, rng: Generator, patch_px: int, truth_share: float
    ) -> tuple[Pixels, Pixels, Pixels]:
        """Cut and turn a patch: the small picture, its target and its reference."""
        top, left = (int(rng.integers(0, side - patch_px + 1)) for side in target.small.shape[:2])
        end_row, end_column, scale = top + patch_px, left + patch_px, self.scale
        small = target.small[top:end_row, left:end_column]
        window = np.s_[top * scale : end_row * scale, left * scale : end_column * scale]
        turns, is_flipped = int(rng.integers(4)), rng.random() < 0.5
        is_true = target.harm == Harm.NONE or rng.random() < truth_share
        large, truth = target.large[window], target.truth[window]
        small, large, reference = (
            _turn(each, turns, is_flipped) for each in (small, large, truth if is_true else large)
        )
        return small, large, reference

    def _cut_truth(
        self,
        pictures: tuple[Pixels, ...],
        rng: Generator,
        patch_px: int,
        unharmed_share: float | None = None,
    ) -> Target:
        """Cut a picture of which a patch can be cut, and make it small."""
        picture = pictures[int(rng.integers(len(pictures)))]
        side = (patch_px + MARGIN_PX) * self.scale
        top, left = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
        truth = np.ascontiguousarray(picture[top : top + side, left : left + side])
        small, harm = degrade(truth, self.scale, rng, unharmed_share)
        return Target(small, truth, truth, harm)


def read_targets(folder: Path, *, scale: int, pages: int, seed: int) -> Targets:
    """Read every target that `scripts/train teach` writes into `folder`.

    Its pictures are larger than the small one by 4; for `scale` 2 they are shrunk, anti-aliased.

    Raises `ValueError` where it holds none.
    """
    photos = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            small, harm = stored["small"], Harm(int(stored["harm"]))
            large, truth = (_fit(stored[name], small, scale) for name in ("large", "truth"))
            photos.append(Target(small, large, truth, harm))
    if not photos:
        raise ValueError(f"{folder} holds no target")
    drawn = tuple(draw_page(np.random.default_rng([seed, number])) for number in range(pages))
    return Targets(tuple(photos), drawn, scale)


def _fit(large: Pixels, small: Pixels, scale: int) -> Pixels:
    """Shrink a picture to `scale` times the size of the small one, where it is larger."""
    factor = large.shape[0] // (small.shape[0] * scale)
    return large if factor == 1 else make_clean(large, factor)


def _turn(pixels: Pixels, turns: int, is_flipped: bool) -> Pixels:
    turned = np.rot90(pixels, turns)
    return np.ascontiguousarray(turned[:, ::-1] if is_flipped else turned)


def _stack(patches: tuple[Pixels, ...]) -> Tensor:
    stacked = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255
    return stacked.contiguous(memory_format=torch.channels_last)
