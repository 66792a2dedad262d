"""RRDB networks: the large ones of ESRGAN and Real-ESRGAN (arXiv:1809.00219, 2107.10833)."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from upscaled_models.families import base
from upscaled_models.families.pair_graph import (
    GraphValue,
    Pattern,
    activate,
    add,
    convolve,
    count_convolutions,
    join,
)

RESIDUAL_SCALE: Final = 0.2
LEAK: Final = 0.2
"""Slope of LeakyReLU below 0."""

HALO_TRUNK_PX: Final[Mapping[int, int]] = {6: 44, 23: 60}
"""Halo by the number of blocks, in trunk pixels: a trade, not exact.

With 23 blocks an output pixel depends on 349 trunk pixels to each side. Measured in float32 with
the official weights of realesrgan-x4plus (23) and realesrgan-x4plus-anime-6b (6) on 14 photographs
of 192x256 px, half of them shrunk and half JPEG: a window cut 96 px and the halo away from what is
compared. Levels of 255 of the worst photograph, and values off by more than 2 of all and of the
worst:

    halo    23 blocks: largest, all, worst     6 blocks: largest, all, worst
      10          110  5.8 %    13.4 %              68  1.5 %     4.2 %
      32           32  0.7 %    2.0 %               14  0.02 %    0.09 %
      40           13  0.16 %   0.5 %                4  0.0005 %  0.004 %
      44            9  0.07 %   0.2 %                3  0         0.0001 %
      56            4  0.003 %  0.010 %              1  0         0
      60            4  0.001 %  0.005 %              1  0         0
      72            2  0        0                    1  0         0

Chosen is the smallest with which in each photograph 99.99 % are within 2 levels, with and without
colour correction, and none is off by more than 4; for 6 blocks one step more. Upstream's own tool
takes 10 input pixels (`tile_pad`). Other depths take that of the next deeper network.
"""

MAX_QUICK_BLOCKS: Final = 6
"""Deeper networks are too slow in float32 for windows that a cancelled request waits for."""

SCALE_BY_INPUT_CHANNELS: Final = {3: 4, 12: 2, 48: 1}
"""Scale 2 folds 2x2 pixels into channels before the trunk, scale 1 folds 4x4."""

BLOCK_CONVOLUTIONS: Final = 15
OTHER_CONVOLUTIONS: Final = 6
"""In each block, and outside of them."""

_BLOCK: Final = re.compile(r"body\.(\d+)\.rdb1\.conv1\.weight")


def rrdb_shape(scale: int, num_block: int, num_feat: int = 64, num_grow_ch: int = 32) -> base.Shape:
    return {
        "num_in_ch": 3,
        "num_out_ch": 3,
        "scale": scale,
        "num_feat": num_feat,
        "num_block": num_block,
        "num_grow_ch": num_grow_ch,
    }


def fold_of(scale: int) -> int:
    """Return 2 for scale 2 and 4 for scale 1, which fold squares of pixels into channels first."""
    return 4 // scale


_FIRST_LAYERS: Final = {
    "model.0": "conv_first",
    "model.3": "conv_up1",
    "model.6": "conv_up2",
    "model.8": "conv_hr",
    "model.10": "conv_last",
}
_SECOND_LAYERS: Final = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
    "conv_last": "conv_last",
}
_FIRST_BLOCK: Final = re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0")
_FIRST_END: Final = re.compile(r"model\.1\.sub\.(\d+)")
_SECOND_BLOCK: Final = re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])")


class RrdbFamily(base.NetworkFamily):
    """A trunk of residual dense blocks at a quarter of the output's side, and two doublings."""

    label = "RRDB (Real-ESRGAN)"
    example = rrdb_shape(scale=4, num_block=1)
    counts = ("num_block",)
    invents_texture = True
    is_quantisable = True
    float_layer = "conv_first"
    tail_layers = ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
    """8 % of the arithmetic, and half of the error in 8 bits."""

    inaccurate = ("bfloat16",)
    """bfloat16 moves flat colours of x4plus by up to 5 levels."""

    pair_network = "an RRDB network"
    pair_result = "convolution"

    def check_shape(self, shape: base.Shape) -> None:
        super().check_shape(shape)
        if shape["scale"] not in (1, 2, 4):
            raise ValueError(f"cannot have scale {shape['scale']}")

    def recognises(self, names: Collection[str]) -> bool:
        return "conv_first.weight" in names

    def shape_of(self, sizes: base.Sizes) -> base.Shape:
        num_feat, num_in, *_ = base.convolution_size(sizes, "conv_first.weight")
        num_grow_ch, *_ = base.convolution_size(sizes, "body.0.rdb1.conv1.weight")
        num_out, *_ = base.convolution_size(sizes, "conv_last.weight")
        if num_in not in SCALE_BY_INPUT_CHANNELS or num_out != 3:
            raise base.UnknownArchitecture(f"an RRDBNet of {num_in} channels in and {num_out} out")
        scale, blocks = SCALE_BY_INPUT_CHANNELS[num_in], len(base.numbers_in(sizes, _BLOCK))
        return rrdb_shape(scale, blocks, num_feat, num_grow_ch)

    def pair_shape(self, values: Sequence[GraphValue]) -> base.Shape:
        first = self.find_first_convolution(values)
        source = first.sources[0]
        fold = int(source.numbers[0]) if source.kind == "unshuffle" else 1
        if 3 * fold**2 not in SCALE_BY_INPUT_CHANNELS:
            raise base.UnknownArchitecture(
                f"{source.layer}: folds {fold} by {fold} pixels, in RRDB networks 2 or 4"
            )
        joined = (each for each in values if each.kind == "join" and len(each.sources) > 1)
        growth = next((each.sources[1].channels for each in joined), 32)
        in_blocks = max(0, count_convolutions(values) - OTHER_CONVOLUTIONS)
        scale, blocks = SCALE_BY_INPUT_CHANNELS[3 * fold**2], in_blocks // BLOCK_CONVOLUTIONS
        return rrdb_shape(scale, blocks, first.channels, growth)

    def pair_graph(self, shape: base.Shape, values: Sequence[GraphValue]) -> Pattern:
        features, fold = base.whole(shape, "num_feat"), self.fold(shape)
        leak = partial(activate, slope=LEAK)
        picture = Pattern("input")
        start = Pattern("unshuffle", (picture,), (fold,)) if fold > 1 else picture
        x = shallow = convolve(start, "conv_first", features)
        for block in range(base.whole(shape, "num_block")):
            x = _block_graph(x, f"body.{block}", features, base.whole(shape, "num_grow_ch"))
        x = add(shallow, convolve(x, "conv_body", features))
        for name in ("conv_up1", "conv_up2"):
            x = leak(convolve(Pattern("enlargement", (x,), (2,)), name, features))
        return convolve(leak(convolve(x, "conv_hr", features)), "conv_last", 3)

    def block_of(self, layer: str) -> str:
        return ".".join(layer.split(".")[:2]) if ".rdb" in layer else ""

    def input_group(self, convolution: str) -> str:
        """Return the dense block, whose convolutions read front parts of one joined input.

        Levels of its own for each would cost a seventh of the time in rounding.
        """
        return convolution.rpartition(".conv")[0] if ".rdb" in convolution else convolution

    def fold(self, shape: base.Shape) -> int:
        return fold_of(base.whole(shape, "scale"))

    def radius_px(self, shape: base.Shape) -> int:
        """Return the reach: 15 a block, `conv_first`, `conv_body`, and 2 behind the trunk."""
        return (15 * base.whole(shape, "num_block") + 4) * self.fold(shape)

    def window_px(self, shape: base.Shape, *, is_cuda: bool, is_tuned: bool) -> int:
        """Return the measured window's side, which is 256, 512 or 816 trunk pixels.

        On CUDA two of 816 px make the longest side at x4 and take 4 GB; where that is too much,
        half is tried. On a CPU, with 23 blocks windows of 256 keep 28 % of what they compute, 384
        47 %, 512 59 %. 512 takes 10 s in 8 bits on two cores and 600 MB (OpenVINO); tuning takes
        less where a batch would be too long. Float32 without tuning takes 13 s for 256.
        """
        is_slow = not is_tuned and base.whole(shape, "num_block") > MAX_QUICK_BLOCKS
        return self.fold(shape) * (816 if is_cuda else 256 if is_slow else 512)

    def cuda_bytes_per_px(self, shape: base.Shape) -> int:
        """Estimate by the 4 GB of windows of 816 trunk pixels: the tail's features are largest."""
        return 6000 // self.fold(shape) ** 2

    def halo_px(self, shape: base.Shape) -> int:
        blocks = base.whole(shape, "num_block")
        halo_px = next(
            (halo for deepest, halo in HALO_TRUNK_PX.items() if blocks <= deepest),
            max(HALO_TRUNK_PX.values()),
        )
        return min(self.radius_px(shape), halo_px * self.fold(shape))

    def new_names(self, names: Collection[str]) -> dict[str, str]:
        """Map each name in an older ESRGAN file to today's; empty for every other set of names.

        Most community models of the x4 network carry one of two older sets of names of the same
        network (RRDBNet of https://github.com/xinntao/ESRGAN, 2018, became BasicSR's):

            2018, "model.1.sub.7.RDB2.conv3.0.weight"     2019, "RRDB_trunk.7.RDB2.conv3.weight"
            today, "body.7.rdb2.conv3.weight"

        2018 files of other scales upsample otherwise, keep their names and are refused by them.
        """
        for layers, block, trunk_end in (
            (_FIRST_LAYERS, _FIRST_BLOCK, _FIRST_END),
            (_SECOND_LAYERS, _SECOND_BLOCK, None),
        ):
            renamed: dict[str, str] = {}
            for name in names:
                layer, _, kind = name.rpartition(".")
                new = layers.get(layer)
                if match := block.fullmatch(layer):
                    new = "body.{}.rdb{}.conv{}".format(*match.groups())
                elif trunk_end and trunk_end.fullmatch(layer):
                    new = "conv_body"
                if new and kind in ("weight", "bias"):
                    renamed[name] = f"{new}.{kind}"
            if len(renamed) == len(names) and "conv_up2.weight" in renamed.values():
                return renamed
        return {}


def _block_graph(entry: Pattern, block: str, features: int, growth: int) -> Pattern:
    x = entry
    for dense in range(1, 4):
        name = f"{block}.rdb{dense}"
        seen = [x]
        for step in range(1, 5):
            seen.append(activate(convolve(join(seen), f"{name}.conv{step}", growth), LEAK))
        x = add(convolve(join(seen), f"{name}.conv5", features), x, RESIDUAL_SCALE)
    return add(x, entry, RESIDUAL_SCALE)
