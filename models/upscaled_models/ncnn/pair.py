"""An ncnn pair as a state dict, and as the bytes of a safetensors file."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from upscaled_models.errors import WeightsError
from upscaled_models.families import Family, Shape
from upscaled_models.files import read_bounded
from upscaled_models.ncnn.binary import BadBinary, WeightReader
from upscaled_models.ncnn.graph import build_graph
from upscaled_models.ncnn.param import MAX_PARAM_BYTES, BadParam, parse_param
from upscaled_models.ncnn.patterns import Tensors, match_network

PARAM_SUFFIX: Final = ".param"
_PAIR_SUFFIXES: Final = (PARAM_SUFFIX, ".bin")
MAX_BIN_BYTES: Final = 1 << 30
"""Largest `.bin` file: no known network comes near it."""

_DTYPE_NAMES: Final = {np.dtype("<f2"): "F16", np.dtype("<f4"): "F32"}


def sort_pair(files: Sequence[Path]) -> tuple[Path, Path]:
    """Return the `.param` and the `.bin` file, in this order."""
    pair = tuple(sorted(files, key=lambda file: file.suffix.lower() != PARAM_SUFFIX))
    if tuple(file.suffix.lower() for file in pair) != _PAIR_SUFFIXES:
        listed = " and ".join(str(file) for file in files)
        raise WeightsError(
            f"{listed}: a model is one weights file, or two: the .param and the .bin of an ncnn "
            "pair"
        )
    return pair[0], pair[1]


def read_pair_files(param: Path, weights: Path) -> tuple[Family, Shape, Tensors]:
    """Read a pair's two files as `read_pair` does."""
    return read_pair(
        read_bounded(param, MAX_PARAM_BYTES),
        read_bounded(weights, MAX_BIN_BYTES),
        param_shown_as=param,
        weights_shown_as=weights,
    )


def read_pair(
    param: bytes, weights: bytes, *, param_shown_as: Path, weights_shown_as: Path
) -> tuple[Family, Shape, Tensors]:
    """Return the family, shape and state dict in an ncnn pair, in the pair's own precision.

    Time and memory grow with the files only; the tensors are views of `weights`.

    Raises:
        WeightsError: a file is damaged or of no known network; the text names file and layer.
    """
    try:
        return match_network(build_graph(parse_param(param), WeightReader(weights)))
    except BadBinary as error:
        raise WeightsError(f"{weights_shown_as}: {error}") from error
    except (BadParam, ValueError) as error:
        raise WeightsError(f"{param_shown_as}: {error}") from error


def to_safetensors(tensors: Tensors) -> bytes:
    """Return a safetensors file of float16 and float32 tensors: equal bytes for equal tensors.

    The library promises no order of tensors, and the hash of this file is pinned. The format:
    https://github.com/huggingface/safetensors#format.
    """
    header: dict[str, object] = {}
    parts: list[bytes] = []
    at = 0
    # Wide values first, so that each begins at a multiple of its width.
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        values = tensors[name]
        part = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": _DTYPE_NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [at, at + len(part)],
        }
        at += len(part)
        parts.append(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((struct.pack("<Q", len(text)), text, *parts))
