"""The ways OpenVINO may run a model on a CPU, for tuning to choose from."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from models.errors import WeightsError
from models.graphs.build import has_graph
from models.graphs.layers import Layers, layers_of
from models.graphs.runtime import digest, has_fast_bfloat16
from models.quantised import quantised_path, read_quantised, read_record
from service.engine.device import Device
from service.engine.loaded import LoadedModel
from service.engine.openvino_engine import OpenVinoEngine, OpenVinoPrecision, build_openvino_engine
from service.engine.torch_candidates import open_torch
from service.engine.tuning.candidate import Candidate

_log = logging.getLogger(__name__)


def openvino_candidates(model: LoadedModel, device: Device, precision: str) -> Sequence[Candidate]:
    """8 bits where `precision` is "fast" and a file of them is here, bfloat16, and float32; none
    for networks that there is no graph of.

    Loads no OpenVINO: only opening one of them does.
    """
    if device.torch_device.type != "cpu" or not has_graph(model.spec.family):
        return []
    try:
        runtime = f"{version('openvino')} {digest()}"
    except PackageNotFoundError:
        return []
    quantised = _int8_candidate(model, device, runtime) if precision == "fast" else None
    floats = [_float_candidate(model, device, each, runtime) for each in ("bfloat16", "float32")]
    return [quantised, *floats] if quantised else floats


def _float_candidate(
    model: LoadedModel, device: Device, precision: OpenVinoPrecision, runtime: str
) -> Candidate:
    opened = partial(_open_float, model, device, precision)
    return Candidate("openvino", precision, device.threads, runtime, opened)


def _int8_candidate(model: LoadedModel, device: Device, runtime: str) -> Candidate | None:
    """None, and said, where there is no file that fits: `fast` is then `auto`."""
    name = model.spec.name
    if model.weights is None or not quantised_path(model.weights).is_file():
        _log.info(
            "%s: not in 8 bits here, so `fast` is `auto`; `upscaled models quantise %s` may make "
            "the file",
            name,
            name,
        )
        return None
    try:
        record = read_record(model.spec, model.weights)
    except WeightsError as error:
        _log.warning("%s: so `fast` is `auto`: %s", name, error)
        return None
    opened = partial(_open_int8, model, model.weights, device)
    edition = f"{runtime} {record.sha256[:16]}"
    return Candidate("openvino", "int8", device.threads, edition, opened)


def _open_float(model: LoadedModel, device: Device, precision: OpenVinoPrecision) -> OpenVinoEngine:
    if precision == "bfloat16" and not has_fast_bfloat16():
        raise RuntimeError("this CPU has no bfloat16 of its own")
    state = {key: value.float().numpy() for key, value in model.network.state_dict().items()}
    return _build(model, device, layers_of(state), precision)


def _open_int8(model: LoadedModel, weights: Path, device: Device) -> OpenVinoEngine:
    return _build(model, device, read_quantised(model.spec, weights), "int8")


def _build(
    model: LoadedModel, device: Device, layers: Layers, precision: OpenVinoPrecision
) -> OpenVinoEngine:
    exact = open_torch(model, replace(device, dtype=torch.float32))
    return build_openvino_engine(
        exact,
        model.spec.family,
        model.spec.shape,
        layers,
        precision,
        window_px=model.window_px,
    )
