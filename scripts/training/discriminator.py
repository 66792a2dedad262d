"""Discriminate a student's pictures from its teacher's, by the features of a trained network.

Its input are the first stages of that network, which are not trained (projected GAN, Sauer et al.,
arXiv:2111.01007). A discriminator of pixels learnt within a hundred steps to detect invisible
patterns, such as the 2x2 pixels in which tempering works. The student responded with checkerboards
(0.5 of the truth's, where 0.3 is usual), and its feature distance rose from 0.67 to 0.75.
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
    """Judge each position of each stage of a picture, given the same stage of its enlarged source.

    Given the source, the texture must also fit the content. Every convolution has spectral
    norm 1 (Miyato et al., arXiv:1802.05957).
    """

    def __init__(self, features: FeatureNetwork) -> None:
        super().__init__()
        self._features = features
        self.heads = nn.ModuleList(_Head(2 * channels) for channels in CHANNELS)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Return the stages of `[n, 3, h, w]` pictures in 0..1, which are slightly blurred first.

        The blur removes patterns of two pixels, which would decide the judgement by themselves.
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
