"""Load a weights file into a network, executing nothing: the bytes loaded are those checked."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upscaled_models.errors import WeightsError
from upscaled_models.families import Family, Shape, UnknownArchitecture, find_new_names, recognise
from upscaled_models.files import read_bounded
from upscaled_models.foreign import refusal_of_format, refusal_of_network
from upscaled_models.networks.table import NETWORKS, State
from upscaled_models.registry import ModelSpec

MAX_WEIGHTS_BYTES: Final = 1 << 30
"""Largest file that is read: no known network comes near 1 GiB."""


def load_network(
    spec: ModelSpec, path: Path, *, denoise: float = 1.0, wdn_path: Path | None = None
) -> nn.Module:
    """Load the network of `spec` with the weights at `path`: eval mode, float32, on the CPU.

    Args:
        denoise: 1 is the model as it is, 0 its `wdn` partner; values between mix the weights.
        wdn_path: the partner's file, needed for any `denoise` below 1.

    Raises:
        WeightsError: a file is damaged, is not the one that `spec` names, or holds other keys,
            shapes or kinds of values than the network; or there is no partner to mix with.
    """
    state = _read_checked(spec, path)
    if denoise != 1.0:
        state = _mix(spec, state, denoise, wdn_path)
    network = build_network(spec.family, spec.shape)
    _compare(network.state_dict(), state, path)
    network.load_state_dict(state, strict=True)
    return network.requires_grad_(False).eval()


def build_network(family: Family, shape: Shape) -> nn.Module:
    """Return a network of that family and shape, with fresh weights."""
    return NETWORKS[family].module(**shape)


def state_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights, biases and slopes as float32 arrays by name."""
    return {key: value.float().numpy() for key, value in network.state_dict().items()}


def recognise_file(
    path: Path, *, shown_as: Path | None = None, network: tuple[Family, Shape] | None = None
) -> tuple[Family, Shape]:
    """Return the family and shape of the network that the weights at `path` fill exactly.

    `network` gives them for the file of an ncnn pair. Error texts name `shown_as`, of which `path`
    may be a copy, and the key; a file that fits no known network raises `WeightsError`.
    """
    shown_as = shown_as or path
    state = read_state(read_bounded(path, MAX_WEIGHTS_BYTES), path if network else shown_as)
    try:
        sizes = {key: tuple(value.shape) for key, value in state.items()}
        family, shape = network or recognise(sizes)
    except UnknownArchitecture as error:
        raise WeightsError(f"{shown_as}: {error}") from error
    with torch.device("meta"):  # without memory: a small file may claim any size
        own = build_network(family, shape).state_dict()
    _compare(own, state, shown_as)
    return family, shape


def read_state(data: bytes, path: Path) -> State:
    """Read the state dict in a weights file's bytes, as float32 on the CPU.

    A file that is no `.safetensors` is read as torch's with `weights_only=True` and unwrapped from
    `params_ema` or `params`. Older ESRGAN names become today's, and SPAN's convolutions are summed
    up. Other formats, damaged files and pickles with code raise `WeightsError`, which says which.
    """
    try:
        is_safetensors = path.suffix == ".safetensors"
        loaded = _parse_safetensors(data, path) if is_safetensors else _parse_torch(data, path)
    except WeightsError as error:
        if (refusal := refusal_of_format(data)) is not None:
            raise WeightsError(f"{path}: {refusal}") from error
        raise
    for wrapper in ("params_ema", "params"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsError(f"{path}: holds no weights, but a {type(loaded).__name__}")
    new_names = find_new_names({str(key) for key in loaded})
    if not new_names and (refusal := refusal_of_network({str(key) for key in loaded})) is not None:
        raise WeightsError(f"{path}: {refusal}")
    state = {
        new_names.get(str(key), str(key)): _checked_value(str(key), value, path, len(data))
        for key, value in loaded.items()
    }
    try:
        for network in NETWORKS.values():
            state = network.fuse_state(state)
        return state
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_checked(spec: ModelSpec, path: Path) -> State:
    data = read_bounded(path, MAX_WEIGHTS_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != spec.sha256:
        raise WeightsError(
            f"{path}: not the file of {spec.name}: SHA-256 is {sha256} ({len(data)} bytes), "
            f"must be {spec.sha256} ({spec.size_bytes} bytes)"
        )
    return read_state(data, path)


def _parse_safetensors(data: bytes, path: Path) -> object:
    import safetensors.torch

    try:
        return safetensors.torch.load(data)
    except Exception as error:
        raise WeightsError(f"{path}: not a safetensors file, or a damaged one: {error}") from error


def _parse_torch(data: bytes, path: Path) -> object:
    """Parse a torch file; official ones hold CUDA tensors, hence `map_location`.

    torch's own error text is not passed on: it may advise to load the file unsafely.
    """
    _refuse_compressed(data, path)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path}: not a weights file, or a damaged one: no torch file of plain tensors"
        ) from error


def _refuse_compressed(data: bytes, path: Path) -> None:
    """Refuse a zip with compressed tensors, which torch would unpack to any size they claim."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            is_compressed = any(entry.compress_type for entry in archive.infolist())
    except zipfile.BadZipFile:
        return  # the old format, or no torch file at all: torch refuses it
    if is_compressed:
        raise WeightsError(f"{path}: holds compressed tensors, which no torch file does")


def _checked_value(key: str, value: object, path: Path, file_bytes: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise WeightsError(f"{path}: {key} holds {kind}, not floating-point weights")
    if value.layout is not torch.strided or value.is_meta:
        raise WeightsError(f"{path}: {key} holds no plain tensor")
    if value.numel() * value.itemsize > file_bytes:
        raise WeightsError(f"{path}: {key} claims more values than the file holds")
    value = value.float().contiguous()
    if not torch.isfinite(value).all():
        raise WeightsError(f"{path}: {key} holds values that are not finite")
    return value


def _mix(spec: ModelSpec, state: State, denoise: float, wdn_path: Path | None) -> State:
    if spec.wdn is None:
        raise WeightsError(f"{spec.name} has no denoise strength: only 1 is possible")
    if wdn_path is None:
        raise WeightsError(
            f"{spec.name} with denoise {denoise} also needs {spec.wdn.name}, which is not here; "
            f"get it with `upscaled models fetch {spec.wdn.name}`"
        )
    return mix_states(state, _read_checked(spec.wdn, wdn_path), denoise)


def mix_states(
    general: Mapping[str, Tensor], wdn: Mapping[str, Tensor], denoise: float
) -> dict[str, Tensor]:
    """Mix two networks of one shape: `denoise * general + (1 - denoise) * wdn`, for every weight.

    Deep network interpolation (Wang et al., arXiv:1811.10515): `wdn` keeps the noise that the other
    removes. Other keys or shapes, or a share out of range, raise `WeightsError`.
    """
    if not 0.0 <= denoise <= 1.0:
        raise WeightsError(f"denoise must be in 0..1, not {denoise}")
    for key in sorted(general.keys() | wdn.keys()):
        if key not in general or key not in wdn or general[key].shape != wdn[key].shape:
            raise WeightsError(f"the two networks of a denoise mix differ at {key}")
    return {key: denoise * general[key] + (1.0 - denoise) * wdn[key] for key in general}


def _compare(own: State, state: State, path: Path) -> None:
    """Refuse a state dict whose keys or shapes differ from those of `own`."""
    for problem, keys in (
        ("is missing", own.keys() - state.keys()),
        ("belongs to no part of the network", state.keys() - own.keys()),
    ):
        if keys:
            more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
            raise WeightsError(f"{path}: {min(keys)} {problem}{more}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise WeightsError(
                f"{path}: {key} has shape {tuple(value.shape)}, must be {tuple(own[key].shape)}"
            )
