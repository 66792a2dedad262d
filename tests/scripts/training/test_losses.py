"""Losses: lacking contrast costs, and surplus contrast as well."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scripts.training import losses
from scripts.training.degradation import Harm
from scripts.training.losses import grid_error, sharpen, shift_error, shift_source
from scripts.training.recipe import Recipe

BARE = Recipe(
    4,
    acutance_weight=0.0,
    sharpen_amount=0.0,
    compressed_sharpen_amount=0.0,
    noisy_sharpen_amount=0.0,
)
CRISP = replace(BARE, acutance_weight=0.5, harmed_acutance_weight=0.0)
PLAIN = replace(BARE, harmed_acutance_weight=0.0)
CLEAN, COMPRESSED, NOISY = (torch.tensor([harm, harm]) for harm in Harm)


@pytest.fixture
def truth() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.rand(2, 3, 32, 32)


def loss_of(
    output: Tensor, truth: Tensor, recipe: Recipe, harms: Tensor = CLEAN
) -> tuple[Tensor, dict[str, float]]:
    return losses.loss_of(output, truth, harms, recipe)


def test_the_loss_of_the_truth_itself_is_0(truth: torch.Tensor) -> None:
    loss, figures = loss_of(truth, truth, CRISP)
    assert float(loss) == 0
    assert figures["acutance"] == pytest.approx(1.0)


def test_the_contrast_weight_raises_the_loss_of_a_soft_output(truth: torch.Tensor) -> None:
    soft = 0.5 + 0.5 * (truth - 0.5)
    with_contrast, figures = loss_of(soft, truth, CRISP)
    assert float(with_contrast) > float(loss_of(soft, truth, PLAIN)[0])
    assert figures["acutance"] == pytest.approx(0.5, abs=0.05)


def test_contrast_counts_for_clean_and_harmed_inputs_by_their_own_weights(
    truth: torch.Tensor,
) -> None:
    soft = 0.5 + 0.5 * (truth - 0.5)
    clean, harmed, mixed = (
        float(loss_of(soft, truth, CRISP, kinds)[0])
        for kinds in (CLEAN, NOISY, torch.tensor([Harm.NONE, Harm.COMPRESSED]))
    )
    assert harmed == float(loss_of(soft, truth, PLAIN)[0])
    assert clean > mixed > harmed


def test_each_harm_has_its_own_sharpening(truth: torch.Tensor) -> None:
    recipe = replace(BARE, compressed_sharpen_amount=0.4, noisy_sharpen_amount=0.8)
    for harms, amount in ((CLEAN, 0.0), (COMPRESSED, 0.4), (NOISY, 0.8)):
        target = sharpen(truth, torch.full((2,), amount))
        bare = replace(recipe, fidelity_weight=0.0)
        assert float(loss_of(target, truth, bare, harms)[0]) == pytest.approx(0, abs=1e-6)


def test_surplus_contrast_raises_the_loss_too(truth: torch.Tensor) -> None:
    harsh = 0.5 + 1.5 * (truth - 0.5)
    assert float(loss_of(harsh, truth, CRISP)[0]) > float(loss_of(harsh, truth, PLAIN)[0])


def test_the_fidelity_weight_raises_the_loss_of_a_colour_cast(truth: torch.Tensor) -> None:
    cast = truth + torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)
    without = replace(PLAIN, fidelity_weight=0.0)
    surplus = float(loss_of(cast, truth, PLAIN)[0]) - float(loss_of(cast, truth, without)[0])
    assert surplus == pytest.approx(PLAIN.fidelity_weight * 0.2 / 3, rel=1e-4)


def test_a_checkerboard_counts_as_no_contrast_and_has_more_than_its_plain_loss() -> None:
    ys, xs = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = 0.05 * (-1.0) ** (xs + ys)
    flat = torch.full((2, 3, 32, 32), 0.5)
    assert losses.contrast(board.view(1, 1, 32, 32)).max() <= 0.0011
    whole = float(loss_of(flat + board, flat, PLAIN)[0])
    plain = float(loss_of(flat + 0.05, flat, replace(PLAIN, fidelity_weight=0.0))[0])
    assert losses.flicker_error(board) == pytest.approx(3 * 0.05)
    assert whole > 2 * plain


def test_sharpening_by_0_changes_nothing_and_by_more_raises_edges(truth: torch.Tensor) -> None:
    assert torch.equal(sharpen(truth, torch.zeros(2)), truth)
    half = sharpen(truth, torch.tensor([0.0, 0.5]))
    assert torch.equal(half[0], truth[0])
    assert not torch.equal(half[1], truth[1])
    edge = torch.full((1, 3, 16, 16), 0.3)
    edge[..., 8:] = 0.7
    sharp = sharpen(edge, torch.tensor([0.5]))
    assert float(sharp[0, 0, 8, 7]) < 0.3 < 0.7 < float(sharp[0, 0, 8, 8])
    assert sharp[0, 0, 8, 0] == pytest.approx(0.3)


def test_a_grid_raises_the_loss_and_the_same_pixels_shuffled_do_not() -> None:
    torch.manual_seed(0)
    dots = torch.zeros(1, 3, 42, 42)
    dots[..., ::4, ::4] = 1.0
    order = torch.randperm(42 * 42)
    shuffled = dots.flatten(2)[..., order].view_as(dots)
    assert float(grid_error(dots, 4)) > 3 * float(grid_error(shuffled, 4))
    assert float(grid_error(torch.full_like(dots, 0.3), 4)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1)])
def test_dots_that_do_not_move_with_the_source_raise_the_loss_and_a_moving_result_does_not(
    shift: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    source = torch.rand(2, 3, 40, 40)
    down_px, right_px = (2 * pixels for pixels in shift)
    first, second = (
        each.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for each in (source, shift_source(source, *shift))
    )
    assert float(shift_error(first, second, down_px, right_px)) == 0.0
    dots = torch.zeros(2, 3, 80, 80)
    dots[..., ::4, ::4] = 0.1
    error = shift_error(first + dots, second + dots, down_px, right_px)
    assert float(error) == pytest.approx(2 * 0.1 / 16, rel=0.1)
