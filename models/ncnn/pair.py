"""An ncnn pair as a state dict, and as the bytes of a safetensors file."""

import json
import struct
from pathlib import Path
from typing import Final

import numpy as np

from models.errors import WeightsError
from models.ncnn.binary import BadBinary, WeightReader
from models.ncnn.graph import build_graph
from models.ncnn.matching import Tensors, match_network
from models.ncnn.param import BadParam, parse_param
from models.registry import Family, Shape, check_shape

_DTYPE_NAMES: Final = {np.dtype("<f2"): "F16", np.dtype("<f4"): "F32"}


def read_pair(
    param: bytes, weights: bytes, *, param_shown_as: Path, weights_shown_as: Path
) -> tuple[Family, Shape, Tensors]:
    """The network in an ncnn pair: family, shape, and a state dict in the pair's own precision.

    Time and memory grow with the files' sizes only; the tensors are views of `weights`.

    Args:
        param, weights: the contents of the `.param` and the `.bin` file.
        param_shown_as, weights_shown_as: the paths that error texts name.

    Raises:
        WeightsError: a file is damaged, they do not belong together, or the network is neither
            RRDB nor compact; the text names the file and the layer.
    """
    try:
        result = build_graph(parse_param(param), WeightReader(weights))
        family, shape, tensors = match_network(result)
        check_shape(family, shape)
    except BadBinary as error:
        raise WeightsError(f"{weights_shown_as}: {error}") from error
    except (BadParam, ValueError) as error:
        raise WeightsError(f"{param_shown_as}: {error}") from error
    return family, shape, tensors


def to_safetensors(tensors: Tensors) -> bytes:
    """A safetensors file of float16 and float32 tensors, the same bytes for the same tensors.

    Written here because a hash of the result is pinned in the registry: the library promises no
    order of tensors. The format: https://github.com/huggingface/safetensors#format.
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
