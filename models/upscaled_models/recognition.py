"""Tells a network's family and shape from the names and sizes of its weights alone.

Loads no torch. It looks at the few keys that carry the shape; whether all others fit is for the
strict loading in `upscaled_models.weights` to say.
"""

import math
import re
from collections.abc import Callable, Mapping

from upscaled_models.registry import (
    Family,
    Shape,
    check_shape,
    plain_shape,
    realplksr_shape,
    rrdb_shape,
    span_shape,
    srvgg_shape,
)

Sizes = Mapping[str, tuple[int, ...]]

_RRDB_BLOCK = re.compile(r"body\.(\d+)\.rdb1\.conv1\.weight")
_BODY_WEIGHT = re.compile(r"body\.(\d+)\.weight")
_PLKSR_PART = re.compile(r"feats\.(\d+)\..+")
_SCALE_OF_RRDB_INPUT = {3: 4, 12: 2, 48: 1}


class UnknownArchitecture(ValueError):
    """Weights of no network that is known here."""


def recognise(sizes: Sizes) -> tuple[Family, Shape]:
    """The family and shape of the network that weights of these sizes belong to.

    Raises:
        UnknownArchitecture: none of the known networks has such weights; the text says why.
    """
    family, recognise_shape = _family_of(sizes)
    shape = recognise_shape(sizes)
    try:
        check_shape(family, shape)
    except ValueError as error:
        raise UnknownArchitecture(str(error)) from error
    return family, shape


def _family_of(sizes: Sizes) -> tuple[Family, Callable[[Sizes], Shape]]:
    if "conv_first.weight" in sizes:
        return "rrdb", _recognise_rrdb
    if "head.weight" in sizes and "tail.weight" in sizes:
        return "plain", _recognise_plain
    if "body.0.weight" in sizes:
        return "srvgg", _recognise_srvgg
    if "block_1.c1_r.weight" in sizes and "conv_cat.weight" in sizes:
        return "span", _recognise_span
    if "feats.1.channel_mixer.0.weight" in sizes:
        return "realplksr", _recognise_realplksr
    first = ", ".join(sorted(sizes)[:3]) or "none"
    raise UnknownArchitecture(f"no network known here has weights named like these: {first}")


def _recognise_rrdb(sizes: Sizes) -> Shape:
    num_feat, num_in, *_ = _convolution(sizes, "conv_first.weight")
    num_grow_ch, *_ = _convolution(sizes, "body.0.rdb1.conv1.weight")
    num_out, *_ = _convolution(sizes, "conv_last.weight")
    if num_in not in _SCALE_OF_RRDB_INPUT or num_out != 3:
        raise UnknownArchitecture(f"an RRDBNet of {num_in} channels in and {num_out} out")
    return rrdb_shape(
        _SCALE_OF_RRDB_INPUT[num_in], _count(sizes, _RRDB_BLOCK), num_feat, num_grow_ch
    )


def _recognise_plain(sizes: Sizes) -> Shape:
    features, *_ = _convolution(sizes, "head.weight")
    num_out, *_ = _convolution(sizes, "tail.weight")
    return plain_shape(_scale_of(num_out), _count(sizes, _BODY_WEIGHT), features)


def _recognise_srvgg(sizes: Sizes) -> Shape:
    """PReLU has one weight a channel. ReLU and LeakyReLU have none and cannot be told apart by
    weights: such files are taken for LeakyReLU.
    """
    num_feat, num_in, *_ = _convolution(sizes, "body.0.weight")
    last = max(int(found[1]) for key in sizes if (found := _BODY_WEIGHT.fullmatch(key)))
    num_out, *_ = _convolution(sizes, f"body.{last}.weight")
    if num_in != 3 or last < 2 or last % 2:
        raise UnknownArchitecture(
            f"an SRVGGNetCompact of {num_in} channels in whose last layer is body.{last}"
        )
    act_type = "prelu" if "body.1.weight" in sizes else "leakyrelu"
    return srvgg_shape(_scale_of(num_out), last // 2 - 1, num_feat, act_type)


def _recognise_span(sizes: Sizes) -> Shape:
    """Of a folded state dict (`upscaled_models.families.span.fold_state`)."""
    features, num_in, *_ = _convolution(sizes, "conv_1.weight")
    num_out, *_ = _convolution(sizes, "upsampler.0.weight")
    if num_in != 3:
        raise UnknownArchitecture(f"a SPAN network of {num_in} channels in")
    return span_shape(_scale_of(num_out), features)


def _recognise_realplksr(sizes: Sizes) -> Shape:
    """The last of `feats` is a convolution, and before it is a dropout without weights."""
    features, num_in, *_ = _convolution(sizes, "feats.0.weight")
    last = max(int(found[1]) for key in sizes if (found := _PLKSR_PART.fullmatch(key)))
    num_out, *_ = _convolution(sizes, f"feats.{last}.weight")
    wide_features, _, kernel_px, _ = _convolution(sizes, "feats.1.lk.conv.weight")
    if num_in != 3 or last < 3:
        raise UnknownArchitecture(
            f"a RealPLKSR network of {num_in} channels in whose last layer is feats.{last}"
        )
    return realplksr_shape(
        _scale_of(num_out),
        features,
        last - 2,
        kernel_px,
        wide_features,
        norm="layer" if "feats.1.layer_norm.weight" in sizes else "group",
        attention="yes" if "feats.1.attn.f.0.weight" in sizes else "no",
        upsampler="dysample" if "to_img.offset.weight" in sizes else "pixelshuffle",
    )


def _convolution(sizes: Sizes, key: str) -> tuple[int, int, int, int]:
    size = sizes.get(key)
    if size is None or len(size) != 4:
        raise UnknownArchitecture(f"{key} is {size}, not a convolution's four sizes")
    return size[0], size[1], size[2], size[3]


def _count(sizes: Sizes, pattern: re.Pattern[str]) -> int:
    return sum(1 for key in sizes if pattern.fullmatch(key))


def _scale_of(num_out: int) -> int:
    scale = math.isqrt(num_out // 3)
    if scale < 1 or num_out != 3 * scale**2:
        raise UnknownArchitecture(f"{num_out} channels out are 3 colours at no whole scale")
    return scale
