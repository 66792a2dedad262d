"""Name the format or network of a file that cannot run here, so that the refusal can say so.

Formats are recognised by their first bytes or parts (as their specifications have them), networks
by names of weights, of their published code's `state_dict`, that no other network of the field has.
Loads no torch.
"""

import io
import re
import zipfile
from collections.abc import Collection
from typing import Final

from upscaled_models.families import FAMILIES
from upscaled_models.ncnn.binary import FLOAT16_TAG, INT8_TAG
from upscaled_models.ncnn.param import MAGIC

_LABELS: Final = [family.label for family in FAMILIES.values()]
WHAT_RUNS: Final = f"{', '.join(_LABELS[:-1])} and {_LABELS[-1]} networks do"

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"%d\n" % MAGIC, "the .param file of an ncnn pair"),
    (0, b"%d\r\n" % MAGIC, "the .param file of an ncnn pair"),
    (0, MAGIC.to_bytes(4, "little"), "the .param file of an ncnn pair in binary form"),
    (0, FLOAT16_TAG.to_bytes(4, "little"), "the .bin file of an ncnn pair"),
    (0, INT8_TAG.to_bytes(4, "little"), "the .bin file of an ncnn pair in 8 bits"),
)
_NEEDS_BOTH: Final = (
    ", which is read with the other: `upscaled models add NAME FILE.param FILE.bin`"
)
_RUNS_NOT: Final = f", which does not run here: {WHAT_RUNS}"

_OPENVINO: Final = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<net\s[^>]*\bversion=")

_ONNX_MAX_IR_VERSION: Final = 64
_ONNX_FIRST_FIELDS: Final = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42})
"""Tags of ModelProto's other fields (onnx.proto): its producer, version, graph, operators."""

_NETWORKS: tuple[tuple[str, str], ...] = (
    ("layers.0.residual_group.overlap_attn.qkv.weight", "a HAT network"),
    ("layers.0.residual_group.layers.0.attn_atd.scale", "an ATD network"),
    ("layers.0.swin1.norm1.weight", "a DRCT network"),
    ("layers.0.residual_group.blocks.0.attn.logit_scale", "a Swin2SR network"),
    ("layers.0.residual_group.blocks.0.norm1.weight", "a SwinIR network, or a kin of it"),
    ("layers.0.blocks.0.gamma", "an RGT network"),
    ("before_RG.1.weight", "a DAT network"),
    ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "an OmniSR network"),
    ("feats.1.channe_mixer.0.weight", "a PLKSR network"),
    ("feats.0.eval_conv.weight", "a SPANPlus network"),
    ("gblocks.1.fc1.weight", "a MoSR network"),
    ("blocks.0.blocks.0.conv.dwconv_hw.weight", "a MoESR network"),
    ("groups.0.blocks.0.attn.bias", "an FDAT network"),
    ("body.0.body.0.body.3.conv_du.0.weight", "an RCAN network"),
    ("model.1.sub.0.RDB1.conv1.0.weight", "an ESRGAN network that is not the plain one of scale 4"),
    ("RRDB_trunk.0.RDB1.conv1.weight", "an ESRGAN network that is not the plain one of scale 4"),
    ("unet1.conv1.conv.0.weight", "a Real-CUGAN network"),
)
"""One weight's name for each network. The first match wins: HAT has SwinIR's too, RGT DAT's."""

_WRAPPERS: Final = ("", "module.", "generator.")
"""Prefixes that training code puts before every name."""


def refusal_of_format(data: bytes) -> str | None:
    """Name the format of a file that is a model in one that is not read here; else None.

    As a sentence: "this is an ONNX model, which does not run here: ...".
    """
    kind = _name_format(data)
    if kind is None:
        return None
    is_half = kind.endswith("of an ncnn pair")
    return f"this is {kind}{_NEEDS_BOTH if is_half else _RUNS_NOT}"


def refusal_of_network(keys: Collection[str]) -> str | None:
    """Name a known network that has weights of these names and cannot run here; else None.

    As a sentence: "this is a SwinIR network, which does not run here: ...".
    """
    for weight, network in _NETWORKS:
        if any(f"{wrapper}{weight}" in keys for wrapper in _WRAPPERS):
            return f"this is {network}{_RUNS_NOT}"
    return None


def _name_format(data: bytes) -> str | None:
    for at, magic, kind in _MAGIC:
        if data[at : at + len(magic)] == magic:
            return kind
    if _OPENVINO.match(data[:1024]):
        return "an OpenVINO model"
    if _is_onnx(data[:16]):
        return "an ONNX model"
    return "a TorchScript model" if _is_torchscript(data) else None


def _is_onnx(head: bytes) -> bool:
    """Return whether this is a protobuf of a small IR version and another ModelProto field."""
    return (
        len(head) > 2
        and head[0] == 0x08
        and 0 < head[1] <= _ONNX_MAX_IR_VERSION
        and head[2] in _ONNX_FIRST_FIELDS
    )


def _is_torchscript(data: bytes) -> bool:
    """Return whether this is a zip that holds code, which a weights file does not."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(re.match(r"[^/]+/(code/|constants\.pkl$)", n) for n in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
