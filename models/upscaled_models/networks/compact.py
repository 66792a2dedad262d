"""SRVGGNetCompact: the small plain network of Real-ESRGAN (realesr-general, realesr-animevideo).

All convolutions run at the input's size. Attribute names are those of the published weight files.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.backends.cuda.step import KernelModule, KernelNetwork, Stack, Target
from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.backends.openvino.nodes import LEVELS, shuffle_order
from upscaled_models.backends.openvino.runtime import Node
from upscaled_models.families import Shape
from upscaled_models.families.compact import LEAK
from upscaled_models.networks.chain import Chain, Link


class SRVGGNetCompact(KernelModule):
    """A chain of `num_conv + 2` convolutions and a pixel shuffle; the enlarged input is added."""

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
        """Map [N, 3, h, w] floats in 0..1 to [N, 3, h * s, w * s], about 0..1, not clamped.

        The added picture keeps the input's precision; convolutions run in that of the weights.
        """
        out = x.to(next(self.parameters()).dtype)
        for layer in self.body:
            out = layer(out)
        nearest = F.interpolate(x, scale_factor=self.upscale, mode="nearest")
        return F.pixel_shuffle(out.to(x.dtype), self.upscale) + nearest

    def to_kernel(self, target: Target) -> KernelNetwork:
        *inner, last = (layer for layer in self.body if isinstance(layer, nn.Conv2d))
        slopes = [_kernel_slope(each) for each in self.body if not isinstance(each, nn.Conv2d)]
        layers = [target.pack(*each) for each in zip(inner, slopes, strict=True)]
        stack = Stack((*layers, target.pack(last)), last.out_channels, target)
        scale = self.upscale

        def run(pixels: Tensor) -> Tensor:
            nearest = F.interpolate(pixels, scale_factor=scale, mode="nearest")
            return F.pixel_shuffle(stack(pixels), scale).add_(nearest)

        return run


def build_graph(x: Node, shape: Shape, layers: Layers) -> Node:
    """Build the network but for its pixel shuffle and the enlarged picture."""
    return build_chain(shape, layers).build(x)


def build_chain(shape: Shape, layers: Layers) -> Chain:
    """Return the same as a chain of convolutions."""
    last = 2 * (int(shape["num_conv"]) + 1)
    links = [
        Link(
            layers.convolutions[f"body.{index}"],
            _slope(f"body.{index + 1}", str(shape["act_type"]), layers),
            input_gain=LEVELS if index == 0 else 1.0,
        )
        for index in range(0, last, 2)
    ]
    order = shuffle_order(int(shape["upscale"]))
    end = Link(layers.convolutions[f"body.{last}"], None, output_gain=LEVELS, order=order)
    return Chain(prepare=lambda x: x, links=(*links, end))


def _slope(name: str, act_type: str, layers: Layers) -> float | Floats:
    if act_type == "prelu":
        return layers.slopes[name]
    return LEAK if act_type == "leakyrelu" else 0.0


def _activation(act_type: str, num_feat: int) -> nn.Module:
    match act_type:
        case "prelu":
            return nn.PReLU(num_parameters=num_feat)
        case "leakyrelu":
            return nn.LeakyReLU(negative_slope=LEAK, inplace=True)
        case "relu":
            return nn.ReLU(inplace=True)
    raise ValueError(f"SRVGGNetCompact has no activation {act_type!r}")


def _kernel_slope(activation: nn.Module) -> float | Tensor:
    if isinstance(activation, nn.PReLU):
        return activation.weight.detach()
    return activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
