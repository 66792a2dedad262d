"""RRDBNet: the large network of ESRGAN and Real-ESRGAN (Wang et al., arXiv:1809.00219, 2107.10833).

Attribute names are those of the published weight files:
`conv_first, body.N.rdbM.convK, conv_body, conv_up1, conv_up2, conv_hr, conv_last`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE

TAIL_RADIUS_PX = 2
"""How far the tail looks, in trunk pixels: one convolution on twice their grid and three on four
times reach 1.25 of them."""

STRIP_PX = 128 * 256
"""Trunk pixels that the tail takes at once. A layer of it holds 2 kB per trunk pixel in bfloat16:
130 MB for its input and output, however large the window is, and twice that in float32. With half
as many, the tail of 451x300 took 7 % longer, for the rows that strips share."""

MIN_CORE_ROWS = 8
"""Fewest kept rows of a strip in very wide windows: fewer rows are computed twice than kept."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows of features, from `start` on, of whose results rows `first` to `last` are kept.

    All of them count trunk pixels from the window's top; `last` is excluded.
    """

    start: int
    first: int
    last: int


def plan_strips(height: int, width: int) -> tuple[int, list[Strip]]:
    """Return the height of every strip, and the strips that the tail takes one after the other.

    Together they cover the rows of a window's features without overlap. All are as high as each
    other, so that the tail is compiled once for it: the last one begins further up instead of being
    shorter.

    Args:
        height, width: of the features, in trunk pixels.
    """
    most = max(STRIP_PX // width, MIN_CORE_ROWS + 2 * TAIL_RADIUS_PX)
    if height <= most:
        return height, [Strip(0, 0, height)]
    overlap = 2 * TAIL_RADIUS_PX
    count = -(-(height - overlap) // (most - overlap))
    rows = -(-(height - overlap) // count) + overlap
    starts = [min(at * (rows - overlap), height - rows) for at in range(count)]
    cuts = [0, *(start + rows - TAIL_RADIUS_PX for start in starts[:-1]), height]
    return rows, [
        Strip(start, first, last)
        for start, first, last in zip(starts, cuts, cuts[1:], strict=False)
    ]


class ResidualDenseBlock(nn.Module):
    """Five 3x3 convolutions, each seeing the block's input and all earlier outputs."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv1 = _conv(num_feat, num_grow_ch)
        self.conv2 = _conv(num_feat + num_grow_ch, num_grow_ch)
        self.conv3 = _conv(num_feat + 2 * num_grow_ch, num_grow_ch)
        self.conv4 = _conv(num_feat + 3 * num_grow_ch, num_grow_ch)
        self.conv5 = _conv(num_feat + 4 * num_grow_ch, num_feat)

    def forward(self, x: Tensor, buffer: Tensor | None = None) -> Tensor:
        """[N, num_feat, h, w] -> same shape.

        Args:
            buffer: [N, num_feat + 4 * num_grow_ch, h, w], overwritten: every convolution reads a
                front part of it and writes behind that. Without it outputs are joined anew for
                each convolution, as gradients need.
        """
        residual = self._join(x) if buffer is None else self._fill(x, buffer)
        return residual.to(x.dtype).mul_(RESIDUAL_SCALE).add_(x)

    def _fill(self, x: Tensor, buffer: Tensor) -> Tensor:
        seen = x.shape[1]
        buffer[:, :seen] = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            behind = buffer[:, seen : seen + conv.out_channels]
            torch.ops.aten.leaky_relu.out(conv(buffer[:, :seen]), LEAK, out=behind)
            seen += conv.out_channels
        residual: Tensor = self.conv5(buffer)
        return residual

    def _join(self, x: Tensor) -> Tensor:
        seen = x.to(self.conv1.weight.dtype)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            grown = F.leaky_relu(conv(seen), LEAK)
            seen = torch.cat((seen, grown), dim=1)
        residual: Tensor = self.conv5(seen)
        return residual


class ResidualInResidual(nn.Module):
    """Three dense blocks inside one more residual."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor, buffer: Tensor | None = None) -> Tensor:
        """[N, num_feat, h, w] -> same shape. `buffer`: see `ResidualDenseBlock`."""
        residual: Tensor = self.rdb3(self.rdb2(self.rdb1(x, buffer), buffer), buffer)
        return residual.mul_(RESIDUAL_SCALE).add_(x)


class RRDBNet(nn.Module):
    """A trunk of `num_block` residual dense blocks, then two nearest-neighbour doublings.

    The trunk always runs at a quarter of the output's side: scale 2 and 1 first fold 2x2 or 4x4
    pixels into channels (`pixel_unshuffle`), so that side must be a multiple of 2 or 4.
    """

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        scale: int,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"RRDBNet has scale 1, 2 or 4, not {scale}")
        self.unshuffle = 4 // scale
        self.num_grow_ch = num_grow_ch
        self.conv_first = _conv(num_in_ch * self.unshuffle**2, num_feat)
        blocks = (ResidualInResidual(num_feat, num_grow_ch) for _ in range(num_block))
        self.body = nn.Sequential(*blocks)
        self.conv_body = _conv(num_feat, num_feat)
        self.conv_up1 = _conv(num_feat, num_feat)
        self.conv_up2 = _conv(num_feat, num_feat)
        self.conv_hr = _conv(num_feat, num_feat)
        self.conv_last = _conv(num_feat, num_out_ch)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, h, w] floats in 0..1 -> [N, 3, h * scale, w * scale], about 0..1, not clamped.

        The trunk is a sum of many small residuals. It is kept in the input's own precision, and the
        convolutions run in that of the weights: bfloat16 weights on a float32 image round each
        residual once, and never the sum.
        """
        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        dtype = self.conv_first.weight.dtype
        shallow = self.conv_first(x.to(dtype))
        buffer = None if torch.is_grad_enabled() else self._make_buffer(shallow)
        features = shallow.to(x.dtype)
        for block in self.body:
            features = block(features, buffer)
        features = shallow + self.conv_body(features.to(dtype))
        del buffer
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._enlarge(features).to(x.dtype)
        return self._enlarge_in_strips(features, x.dtype)

    def _enlarge(self, features: Tensor) -> Tensor:
        """Run the tail: features `[N, num_feat, h, w]` -> `[N, num_out_ch, 4h, 4w]`."""
        for conv in (self.conv_up1, self.conv_up2):
            doubled = F.interpolate(features, scale_factor=2, mode="nearest")
            features = F.leaky_relu(conv(doubled), LEAK, inplace=True)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(features), LEAK, inplace=True))
        return out

    def _enlarge_in_strips(self, features: Tensor, dtype: torch.dtype) -> Tensor:
        """Run the tail on a few rows at a time.

        Its layers hold 16 times the trunk's pixels, which at 512x512 would take 2 GB of a
        computer's memory. A GPU has that memory, and small parts would slow it down.
        """
        count, _, height, width = features.shape
        rows, strips = plan_strips(height, width)
        if len(strips) == 1:
            return self._enlarge(features).to(dtype)
        channels = self.conv_last.out_channels
        result = features.new_empty((count, channels, 4 * height, 4 * width), dtype=dtype)
        for strip in strips:
            made = self._enlarge(features[:, :, strip.start : strip.start + rows])
            above = strip.first - strip.start
            kept = made[:, :, 4 * above : 4 * (above + strip.last - strip.first)]
            result[:, :, 4 * strip.first : 4 * strip.last] = kept
        return result

    def _make_buffer(self, shallow: Tensor) -> Tensor:
        """Allocate one buffer for all blocks, which run in sequence: fresh memory is slow."""
        count, channels, height, width = shallow.shape
        is_last = shallow.is_contiguous(memory_format=torch.channels_last)
        return torch.empty(
            (count, channels + 4 * self.num_grow_ch, height, width),
            dtype=shallow.dtype,
            device=shallow.device,
            memory_format=torch.channels_last if is_last else torch.contiguous_format,
        )


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
