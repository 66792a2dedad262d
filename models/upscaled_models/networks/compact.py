"""SRVGGNetCompact: the small plain network of Real-ESRGAN (realesr-general, realesr-animevideo).

All convolutions run at the input's size; the last gives the pixels of one input pixel as channels.
Attribute names are those of the published weight files: `body.N.weight`, `body.N.bias`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.families.compact import LEAK


class SRVGGNetCompact(nn.Module):
    """`num_conv + 2` 3x3 convolutions, a pixel shuffle, and the nearest-neighbour picture added."""

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        upscale: int = 4,
        act_type: str = "prelu",
    ) -> None:
        super().__init__()
        self.upscale = upscale
        self.body = nn.ModuleList()
        for index in range(num_conv + 1):
            in_channels = num_in_ch if index == 0 else num_feat
            self.body.append(nn.Conv2d(in_channels, num_feat, kernel_size=3, padding=1))
            self.body.append(_activation(act_type, num_feat))
        out_channels = num_out_ch * upscale**2
        self.body.append(nn.Conv2d(num_feat, out_channels, kernel_size=3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, h, w] floats in 0..1 -> [N, 3, h * s, w * s], about 0..1, not clamped.

        The picture that is added keeps the input's own precision, and the convolutions run in
        that of the weights: bfloat16 weights on a float32 image leave out the coarsest rounding.
        """
        out = x.to(next(self.parameters()).dtype)
        for layer in self.body:
            out = layer(out)
        nearest = F.interpolate(x, scale_factor=self.upscale, mode="nearest")
        return F.pixel_shuffle(out.to(x.dtype), self.upscale) + nearest


def _activation(act_type: str, num_feat: int) -> nn.Module:
    match act_type:
        case "prelu":
            return nn.PReLU(num_parameters=num_feat)
        case "leakyrelu":
            return nn.LeakyReLU(negative_slope=LEAK, inplace=True)
        case "relu":
            return nn.ReLU(inplace=True)
    raise ValueError(f"SRVGGNetCompact has no activation {act_type!r}")
