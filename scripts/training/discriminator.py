"""The network that learns to distinguish a student's pictures from its teacher's.

It judges by the first stages of a trained network, which stay as they are (projected GAN, Sauer et
al., arXiv:2111.01007). One that saw pixels found what no eye sees within a hundred steps, such as
the 2x2 pixels in which tempering works, and the student answered with checkerboards (0.5 of the
truth's where 0.3 is usual) and a feature distance of 0.75 where it had been 0.67.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from upscaled_models.quantise.features import FeatureNetwork

CHANNELS = (32, 16, 24, 40)
"""Channels of the stages that are judged: the stem's and those of the first three stages."""
HIDDEN = 64
SLOPE = 0.2
GAIN = 1.4
"""What a layer is multiplied by: LeakyReLU takes about as much of a signal's size."""


class Discriminator(nn.Module):
    """Judge each place of each stage of a picture, beside the same stage of its enlarged source.

    The source is there so that texture must fit what was there. Every convolution has spectral
    norm 1 (Miyato et al., arXiv:1802.05957).
    """

    def __init__(self, features: FeatureNetwork) -> None:
        super().__init__()
        self._features = features
        self.heads = nn.ModuleList(_Head(2 * channels) for channels in CHANNELS)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Return what is judged of `[n, 3, h, w]` pictures in 0..1, slightly blurred first.

        The blur takes patterns of two pixels out, which alone would decide otherwise.
        """
        taps = torch.tensor([0.25, 0.5, 0.25]).expand(3, 1, 1, 3)
        smooth = F.conv2d(F.conv2d(pictures, taps, groups=3), taps.transpose(2, 3), groups=3)
        stages = self._features.stages(smooth * 255, stages=len(CHANNELS))
        return [stage * stage.shape[1] ** 0.5 for stage in stages]

    def forward(self, stages: list[Tensor], source_stages: list[Tensor]) -> list[Tensor]:
        """Judge a picture's stages: for each, `[n, 1, h, w]`, above 0 where it looks real."""
        pairs = zip(self.heads, stages, source_stages, strict=True)
        return [head(torch.cat([own, source], 1)) for head, own, source in pairs]


class _Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(channels, HIDDEN, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1))
        self.last = spectral_norm(nn.Conv2d(HIDDEN, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), SLOPE) * GAIN
        x = F.leaky_relu(self.second(x), SLOPE) * GAIN
        judged: Tensor = self.last(x)
        return judged
