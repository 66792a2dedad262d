"""A refused file is named; files are made here as each format's specification has it."""

import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from upscaled_models.errors import WeightsError
from upscaled_models.weights import read_state, recognise_file

RUNS_NOT = (
    ", which does not run here: RRDB (Real-ESRGAN), compact (SRVGG), SPAN, RealPLKSR and plain "
    "networks do"
)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as refused:
        recognise_file(path)
    return str(refused.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("keys", "network"),
    [
        (("layers.0.residual_group.blocks.0.norm1.weight",), "a SwinIR network, or a kin of it"),
        (
            (
                "layers.0.residual_group.blocks.0.norm1.weight",
                "layers.0.residual_group.overlap_attn.qkv.weight",
            ),
            "a HAT network",
        ),
        (
            (
                "layers.0.residual_group.blocks.0.norm1.weight",
                "layers.0.residual_group.blocks.0.attn.logit_scale",
            ),
            "a Swin2SR network",
        ),
        (("layers.0.residual_group.layers.0.attn_atd.scale",), "an ATD network"),
        (("layers.0.swin1.norm1.weight",), "a DRCT network"),
        (("before_RG.1.weight",), "a DAT network"),
        (("before_RG.1.weight", "layers.0.blocks.0.gamma"), "an RGT network"),
        (("residual_layer.0.residual_layer.0.layer.0.fn.0.weight",), "an OmniSR network"),
        (("feats.1.channe_mixer.0.weight",), "a PLKSR network"),
        (("feats.0.eval_conv.weight", "feats.1.block_1.c1_r.sk.weight"), "a SPANPlus network"),
        (("module.gblocks.1.fc1.weight",), "a MoSR network"),
        (("blocks.0.blocks.0.conv.dwconv_hw.weight",), "a MoESR network"),
        (("groups.0.blocks.0.attn.bias",), "an FDAT network"),
        (("head.0.weight", "body.0.body.0.body.3.conv_du.0.weight"), "an RCAN network"),
        (
            ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),
            "an ESRGAN network that is not the plain one of scale 4",
        ),
        (
            ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"),
            "an ESRGAN network that is not the plain one of scale 4",
        ),
        (("unet1.conv1.conv.0.weight",), "a Real-CUGAN network"),
    ],
)
def test_a_network_of_another_kind_is_called_by_its_name(
    keys: tuple[str, ...], network: str, suffix: str, tmp_path: Path
) -> None:
    """Whole numbers among its weights, as attention has, do not hide what it is."""
    path = tmp_path / f"theirs{suffix}"
    numbers = {"layers.0.relative_position_index": torch.zeros(2, dtype=torch.int64)}
    state = numbers | {key: torch.zeros(2) for key in ("conv_first.weight", *keys)}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"params": state}, path)
    assert refusal(path) == f"{path}: this is {network}{RUNS_NOT}"


def protobuf(number: int, payload: bytes | int) -> bytes:
    """One field: a whole number, or bytes with their length (below 128)."""
    if isinstance(payload, int):
        return bytes([number << 3, payload])
    return bytes([number << 3 | 2, len(payload)]) + payload


@pytest.mark.parametrize("suffix", [".pth", ".onnx", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (protobuf(1, 8) + protobuf(2, b"pytorch") + protobuf(3, b"2.1.0"), "an ONNX model"),
        (protobuf(1, 10) + protobuf(7, b"graph"), "an ONNX model"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "a TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, as Keras writes"),
        (b"GGUF" + bytes(64), "a GGUF model"),
        (b'<?xml version="1.0"?>\n<net name="model" version="11">', "an OpenVINO model"),
    ],
)
def test_a_file_of_another_format_is_called_by_its_name(
    content: bytes, kind: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"theirs{suffix}"
    path.write_bytes(content)
    assert refusal(path) == f"{path}: this is {kind}{RUNS_NOT}"


def test_half_a_pair_is_refused_and_the_error_names_the_other_half(tmp_path: Path) -> None:
    for content in (b"7767517\n2 2\n", b"7767517\r\n", struct.pack("<I", 0x01306B47) + bytes(9)):
        path = tmp_path / "theirs.pth"
        path.write_bytes(content)
        said = refusal(path)
        assert "of an ncnn pair, which is read with the other: `upscaled models add NAME" in said


def test_a_torchscript_model_is_called_by_its_name(tmp_path: Path) -> None:
    """A zip as a weights file is, with compressed code in it."""
    path = tmp_path / "theirs.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("theirs/code/__torch__/Net.py", "class Net(Module):\n" * 20)
        archive.writestr("theirs/constants.pkl", b"\x80\x02).")
    assert refusal(path) == f"{path}: this is a TorchScript model{RUNS_NOT}"


def test_a_sound_file_is_never_mistaken_for_another_format(tmp_path: Path) -> None:
    """A safetensors file begins with a length, which may look like an ONNX model."""
    tensors = {"body.0.weight": torch.zeros(1)}
    rest = int.from_bytes(save(tensors, metadata={"about": ""})[:8], "little")
    data = save(tensors, metadata={"about": "x" * (0x120808 - rest)})
    assert data[:3] == b"\x08\x08\x12"
    assert list(read_state(data, tmp_path / "sound.safetensors")) == ["body.0.weight"]
