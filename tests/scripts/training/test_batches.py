"""Batches: an input patch lies where its truth lies."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.training.batches import batches_from, draw_pair
from scripts.training.degradation import Harm
from scripts.training.pictures import Pictures
from scripts.training.recipe import Recipe
from upscaled_models.quantise.tracks import shrink

RECIPE = Recipe(4, batch=2, patch_px=16, steps=9)


def smooth() -> Pictures:
    ys, xs = np.mgrid[0:160, 0:160]
    waves = np.stack([120 + 90 * np.sin(xs / 19 + ys / 23), xs * 1.5, ys * 1.5], axis=-1)
    picture = np.clip(waves, 0, 255).astype(np.uint8)
    return Pictures((picture,), (picture,))


def test_a_patch_is_aligned_with_its_truth() -> None:
    for step in range(20):
        small, truth, _ = draw_pair(smooth(), RECIPE, np.random.default_rng(step))
        assert small.shape == (16, 16, 3)
        assert truth.shape == (64, 64, 3)
        again = shrink(np.ascontiguousarray(truth), 4, Image.Resampling.BOX).astype(float)
        inner = (slice(2, -2), slice(2, -2))
        assert np.abs(again - small)[inner].mean() < 12


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_recipe_sets_the_share_of_unharmed_inputs(share: float) -> None:
    recipe = replace(RECIPE, unharmed_share=share)
    harms = [draw_pair(smooth(), recipe, np.random.default_rng(step))[2] for step in range(9)]
    assert [harm == Harm.NONE for harm in harms] == [share == 1] * 9


def test_batches_are_yielded_in_the_order_of_their_steps() -> None:
    ahead = list(islice(batches_from(smooth(), RECIPE, 0), 9))
    later = list(batches_from(smooth(), RECIPE, 5))
    assert len(later) == 4
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(ahead[5:], later, strict=True))
    assert ahead[0].inputs.shape == (2, 3, 16, 16)
    assert ahead[0].truths.shape == (2, 3, 64, 64)
    assert ahead[0].inputs.dtype == torch.uint8
