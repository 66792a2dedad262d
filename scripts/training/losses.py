"""The loss of a training step: colour error and error of local contrast."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.training.degradation import Harm
from scripts.training.recipe import Recipe

LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""ITU-R BT.601 luma of RGB in 0..1, without its offset, as the field measures PSNR."""

NEIGHBOURHOOD_PX = 8
"""Local contrast is averaged over this many output pixels: its position may be wrong, its amount
may not."""

SHIFT_BORDER_PX = 16
"""Result pixels left out when two results are compared: those that depend on the picture's edge."""


def luma(pixels: Tensor) -> Tensor:
    """Convert `[N, 3, h, w]` RGB to luma `[N, 1, h, w]`."""
    weights = torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def contrast(plane: Tensor) -> Tensor:
    """Return the mean gradient magnitude in each neighbourhood of `[N, 1, h, w]`, by the Sobel
    operator.

    Sobel, not steps between neighbours, because it is blind to patterns of a two-pixel period:
    a network that is rewarded for mere steps learns to lay a fine checkerboard over all it is
    unsure of.
    """
    smooth = plane[..., :-2] + 2 * plane[..., 1:-1] + plane[..., 2:]
    down = (smooth[..., 2:, :] - smooth[..., :-2, :]) / 8
    smooth = plane[..., :-2, :] + 2 * plane[..., 1:-1, :] + plane[..., 2:, :]
    across = (smooth[..., 2:] - smooth[..., :-2]) / 8
    magnitude = (across.square() + down.square() + 1e-6).sqrt()
    return F.avg_pool2d(magnitude, NEIGHBOURHOOD_PX, stride=NEIGHBOURHOOD_PX // 2)


def flicker_error(error: Tensor) -> Tensor:
    """Return the part of an error `[N, C, h, w]` that alternates from pixel to pixel.

    That is a checkerboard or stripes. The result is the mean amplitude of alternation across, down
    and both ways, summed.
    """
    across = error[..., 1:] - error[..., :-1]
    both = (across[..., 1:, :] - across[..., :-1, :]).abs().mean() / 4
    wide = (across[..., 1:] - across[..., :-1]).abs().mean() / 4
    down = error[..., 1:, :] - error[..., :-1, :]
    tall = (down[..., 1:, :] - down[..., :-1, :]).abs().mean() / 4
    return both + wide + tall


def sharpen(truth: Tensor, amounts: Tensor) -> Tensor:
    """Apply an unsharp mask of sigma 1.5 px on `[N, 3, h, w]`, by `[N]` amounts, clipped to
    0..1."""
    taps = torch.exp(-0.5 * (torch.arange(-4, 5, dtype=truth.dtype) / 1.5) ** 2)
    taps = (taps / taps.sum()).expand(truth.shape[0] * truth.shape[1], 1, 1, 9)
    planes = truth.flatten(0, 1).unsqueeze(0)
    padded = F.pad(planes, (4, 4, 4, 4), mode="reflect")
    count = planes.shape[1]
    wide = F.conv2d(padded, taps, groups=count)
    soft = F.conv2d(wide, taps.transpose(2, 3), groups=count).view_as(truth)
    return (truth + amounts.view(-1, 1, 1, 1) * (truth - soft)).clamp(0.0, 1.0)


def loss_of(
    output: Tensor, truth: Tensor, harms: Tensor, recipe: Recipe
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of float32 `[N, 3, h, w]` output and truth in 0..1, and figures to log.

    All is measured against the truth sharpened by `sharpen_amount`, for compressed inputs by
    `compressed_sharpen_amount`, for noisy ones by `noisy_sharpen_amount`. Mean absolute error,
    half on RGB and half on luma; plus the error in contrast of neighbourhoods, times
    `acutance_weight` or `harmed_acutance_weight` (surplus counts like lack: where only the lack
    counted, edges of drawings grew halos); plus `flicker_weight` times the alternating part of
    the error in luma; plus `fidelity_weight` times the error of the output shrunk by area against
    the plain truth, so that the result, made small again, has the input's colours. `harms` is
    `[N]`, values of `Harm`.
    """
    by_harm = (
        recipe.sharpen_amount,
        recipe.compressed_sharpen_amount,
        recipe.noisy_sharpen_amount,
    )
    amounts = torch.tensor(by_harm)[harms]
    target = sharpen(truth, amounts)
    output_luma, target_luma = luma(output), luma(target)
    error = 0.5 * (output - target).abs().mean() + 0.5 * (output_luma - target_luma).abs().mean()
    output_contrast, target_contrast = contrast(output_luma), contrast(target_luma)
    contrast_errors = (target_contrast - output_contrast).abs().mean(dim=(1, 2, 3))
    weights = torch.where(harms == Harm.NONE, recipe.acutance_weight, recipe.harmed_acutance_weight)
    figures = {
        "error": float(error.detach()),
        "acutance": float(output_contrast.detach().mean() / target_contrast.mean()),
    }
    shrunk_error = F.avg_pool2d(output - truth, recipe.scale).abs().mean()
    contrast_error = (weights * contrast_errors).mean()
    flicker = recipe.flicker_weight * flicker_error(output_luma - target_luma)
    return error + contrast_error + recipe.fidelity_weight * shrunk_error + flicker, figures


def grid_error(error: Tensor, period_px: int, blocks: int = 5) -> Tensor:
    """Return the part of an error `[N, C, h, w]` that repeats from block to block, as a grid does.

    A block has `period_px` pixels a side: those that one pixel of a network's trunk becomes. The
    mean of each of its places over `blocks` x `blocks` neighbours, less the mean of all places.
    """
    height, width = (side // period_px * period_px for side in error.shape[2:])
    planes = error[..., :height, :width].flatten(0, 1).unsqueeze(1)
    places = F.pixel_unshuffle(planes, period_px)
    size = min(blocks, *places.shape[2:])
    means = F.avg_pool2d(places, size, stride=max(1, size // 2))
    return (means - means.mean(1, keepdim=True)).abs().mean()


def shift_source(small: Tensor, down_px: int, right_px: int) -> Tensor:
    """Move pixels `[N, C, h, w]` up and left; the last row and column are repeated."""
    padded = F.pad(small, (0, right_px, 0, down_px), mode="replicate")
    return padded[..., down_px:, right_px:].contiguous(memory_format=torch.channels_last)


def shift_error(output: Tensor, of_shifted: Tensor, down_px: int, right_px: int) -> Tensor:
    """Return how far the result of a shifted source is from the result, shifted likewise.

    A network that folds its source computes squares of pixels: what it draws may depend on where
    in its square a pixel lies, as dots in a grid do. Then the two differ. Both are
    `[N, C, h, w]`; the shift is in pixels of the result. A border is left out.
    """
    height, width = output.shape[2] - down_px, output.shape[3] - right_px
    difference = output[..., down_px:, right_px:] - of_shifted[..., :height, :width]
    inner = slice(SHIFT_BORDER_PX, -SHIFT_BORDER_PX)
    return difference[..., inner, inner].abs().mean()


def texture_distance(output: Tensor, target: Tensor, filters: int = 6) -> Tensor:
    """Return the sliced Wasserstein distance of responses to random 9x9 filters, at two sizes.

    Sorting the responses leaves out where each lies: texture that is displaced costs nothing.
    """
    distances = []
    for halvings in range(2):
        if halvings:
            output, target = F.avg_pool2d(output, 2), F.avg_pool2d(target, 2)
        kernels = torch.randn(filters, 3, 9, 9)
        kernels = kernels - kernels.mean((1, 2, 3), keepdim=True)
        kernels = kernels / kernels.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        sorted_pair = [
            F.conv2d(each, kernels, stride=2).flatten(2).sort(dim=2).values
            for each in (output, target)
        ]
        distances.append((sorted_pair[0] - sorted_pair[1]).abs().mean())
    return torch.stack(distances).mean()
