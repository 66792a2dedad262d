"""SPAN: six blocks of 3x3 convolutions with parameter-free attention (arXiv:2311.12770).

Each convolution is trained as several parallel ones. Their sum is one convolution of 3x3, which
runs here (`fuse_state`). Attribute names are those of the published weight files, without the
names of these parts.
"""

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.nodes import LEVELS, convolve, shuffle_order
from upscaled_models.backends.openvino.runtime import Node, import_openvino
from upscaled_models.families import Shape
from upscaled_models.families.span import BLOCKS

State = dict[str, Tensor]

TRAINING_MEAN: Final = (0.4488, 0.4371, 0.4040)
TRAINING_RANGE: Final = 255.0
"""The published code subtracts DIV2K's mean colour and multiplies by the range.

A file does not hold them; an entry `no_norm` in it says that the network has neither.
"""

_PART: Final = re.compile(r"(.+)\.(sk|eval_conv|conv\.[012])\.(weight|bias)")
_PARTS: Final = ("sk", "conv.0", "conv.1", "conv.2")


class SpanBlock(nn.Module):
    """Three convolutions, then an attention without weights."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.c1_r = _conv(features, features)
        self.c2_r = _conv(features, features)
        self.c3_r = _conv(features, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, features, h, w] to the result and the first activated one, both of that shape."""
        first = F.silu(self.c1_r(x))
        last = self.c3_r(F.silu(self.c2_r(first), inplace=True))
        return (last + x) * (torch.sigmoid(last) - 0.5), first


class SPAN(nn.Module):
    """One convolution, six blocks, and a pixel shuffle; nothing is added to an enlarged picture.

    `mean` `[3]` and `gain` `[1]` normalise the picture: 0 and 1 where it is not.
    """

    mean: Tensor
    gain: Tensor

    def __init__(self, scale: int, features: int) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("gain", torch.ones(1))
        self.conv_1 = _conv(3, features)
        for number in range(1, BLOCKS + 1):
            setattr(self, f"block_{number}", SpanBlock(features))
        self.conv_2 = _conv(features, features)
        self.conv_cat = nn.Conv2d(4 * features, features, kernel_size=1)
        self.upsampler = nn.ModuleList([_conv(features, 3 * scale**2)])

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, 3, h, w] in 0..1 to [N, 3, h * scale, w * scale], about 0..1, not clamped."""
        normalised = (x - self.mean.to(x.dtype).view(1, 3, 1, 1)) * self.gain.to(x.dtype)
        shallow = self.conv_1(normalised.to(self.conv_1.weight.dtype))
        after_first, activated = self.get_submodule("block_1")(shallow)
        features = after_first
        for number in range(2, BLOCKS + 1):
            features, activated = self.get_submodule(f"block_{number}")(features)
        joined = torch.cat((shallow, self.conv_2(features), after_first, activated), dim=1)
        out = self.upsampler[0](self.conv_cat(joined))
        return F.pixel_shuffle(out.to(x.dtype), self.scale)


def build_graph(x: Node, shape: Shape, layers: Layers) -> Node:
    """Build the network but for its pixel shuffle."""
    ops = import_openvino().opset15
    convolutions = layers.convolutions
    mean = layers.constants["mean"].reshape(1, 3, 1, 1) * np.float32(LEVELS)
    centred = ops.subtract(x, ops.constant(mean)) if mean.any() else x
    gain = LEVELS / float(layers.constants["gain"][0])
    shallow = convolve(centred, convolutions["conv_1"], input_gain=gain)
    features = shallow
    blocks: list[Node] = []
    for number in range(1, BLOCKS + 1):
        features, activated = _build_block(features, f"block_{number}", layers)
        blocks.append(features)
    last = convolve(features, convolutions["conv_2"])
    joined = ops.concat([shallow, last, blocks[0], activated], 1)
    order = shuffle_order(int(shape["scale"]))
    y = convolve(joined, convolutions["conv_cat"])
    return convolve(y, convolutions["upsampler.0"], output_gain=LEVELS, order=order)


def _build_block(x: Node, name: str, layers: Layers) -> tuple[Node, Node]:
    """Build `SpanBlock`."""
    ops = import_openvino().opset15
    one, two, three = (layers.convolutions[f"{name}.c{number}_r"] for number in (1, 2, 3))
    first = ops.swish(convolve(x, one))
    last = convolve(ops.swish(convolve(first, two)), three)
    attention = ops.subtract(ops.sigmoid(last), np.float32(0.5))
    return ops.multiply(ops.add(last, x), attention), first


def fuse_state(state: Mapping[str, Tensor]) -> State:
    """Fuse each convolution's parts in a SPAN file's state dict, in float64; others stay as is.

    Raises:
        ValueError: parts of a convolution are missing or do not fit together; the text names it.
    """
    if not is_span(state):
        return dict(state)
    parts: dict[str, State] = {}
    fused: State = {}
    for key, value in state.items():
        if match := _PART.fullmatch(key):
            parts.setdefault(match[1], {})[f"{match[2]}.{match[3]}"] = value
        elif key != "no_norm":
            fused[key] = value
    if parts and "mean" not in fused and "gain" not in fused:
        is_plain = "no_norm" in state
        fused["mean"] = torch.zeros(3) if is_plain else torch.tensor(TRAINING_MEAN)
        fused["gain"] = torch.ones(1) if is_plain else torch.tensor([TRAINING_RANGE])
    for name, own in parts.items():
        fused[f"{name}.weight"], fused[f"{name}.bias"] = _fuse(name, own)
    return fused


def is_span(keys: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict of these keys is a SPAN network's, fused or not."""
    return "conv_cat.weight" in keys and any(key.startswith("block_1.c1_r.") for key in keys)


def _fuse(name: str, parts: State) -> tuple[Tensor, Tensor]:
    """Return the weight `[out, in, 3, 3]` and the bias `[out]` of the sum of these parts."""
    whole = ("eval_conv.weight", "eval_conv.bias")
    if parts.keys() == set(whole):
        return parts[whole[0]], parts[whole[1]]
    needed = [f"{part}.{kind}" for part in _PARTS for kind in ("weight", "bias")]
    if missing := [key for key in needed if key not in parts]:
        raise ValueError(f"a SPAN network, but {name}.{missing[0]} is missing")
    weights = [parts[f"{part}.weight"].double() for part in _PARTS]
    biases = [parts[f"{part}.bias"].double() for part in _PARTS]
    skip, first, middle, last = weights
    try:
        weight = torch.einsum("ob,bayx,ai->oiyx", last[..., 0, 0], middle, first[..., 0, 0])
        weight[..., 1, 1] += skip[..., 0, 0]
        inner = torch.einsum("bayx,a->b", middle, biases[1]) + biases[2]
        bias = last[..., 0, 0] @ inner + biases[3] + biases[0]
    except (RuntimeError, IndexError) as error:
        sizes = ", ".join(str(tuple(each.shape)) for each in weights)
        raise ValueError(
            f"a SPAN network, but {name}: its parts do not fit together: {sizes}"
        ) from error
    return weight.float(), bias.float()


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
