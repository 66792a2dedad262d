"""The ways OpenVINO may run a model on a CPU, for tuning to choose from."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from upscaled_models.autotune.accuracy import FLOAT_BARS, INT8_BARS, RECORDED_BAR
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.autotune.defaults import EXACT_8_BITS, find_instruction_set
from upscaled_models.autotune.torch_candidates import open_torch
from upscaled_models.backends.device import Device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.backends.openvino.engine import (
    OpenVinoEngine,
    OpenVinoPrecision,
    build_openvino_engine,
)
from upscaled_models.backends.openvino.graph import has_graph
from upscaled_models.backends.openvino.layers import Layers, layers_of
from upscaled_models.backends.openvino.runtime import digest, has_fast_bfloat16
from upscaled_models.errors import WeightsError
from upscaled_models.quantise.prepared import PreparedForm, find_prepared
from upscaled_models.quantise.record import allowed_in
from upscaled_models.weights import state_of

_FLOATS: Final[Sequence[OpenVinoPrecision]] = ("bfloat16", "float32")

_log = logging.getLogger(__name__)


def openvino_candidates(model: LoadedModel, device: Device, precision: str) -> Sequence[Candidate]:
    """8 bits where a form of them is here and proven for `precision`, bfloat16, and float32;
    none for networks that there is no graph of.

    Loads no OpenVINO: only opening one of them does.
    """
    if device.torch_device.type != "cpu" or not has_graph(model.spec.family, model.spec.shape):
        return []
    try:
        runtime = f"{version('openvino')} {digest()}"
    except PackageNotFoundError:
        return []
    quantised = _int8_candidate(model, device, precision, runtime)
    floats = [
        Candidate(
            "openvino",
            dtype,
            device.threads,
            runtime,
            FLOAT_BARS[precision],
            partial(_open_float, model, device, dtype),
        )
        for dtype in _FLOATS
    ]
    return [quantised, *floats] if quantised else floats


def _int8_candidate(
    model: LoadedModel, device: Device, precision: str, runtime: str
) -> Candidate | None:
    """None, and said, where there is no form that is proven for `precision`."""
    name = model.spec.name
    try:
        forms = find_prepared(model.spec, model.weights) if model.weights else []
    except WeightsError as error:
        _log.warning("%s: not in 8 bits here: %s", name, error)
        return None
    if not forms:
        _log.info(
            "%s: not in 8 bits here; `upscaled models quantise %s` may make the file", name, name
        )
        return None
    form = next((each for each in forms if allowed_in(each.record, precision)), None)
    if form is None:
        _log.info("%s: its 8 bits are not proven near enough for `%s`", name, precision)
        return None
    invents_texture = model.spec.family == "rrdb"  # a small picture's decibels say little of it
    if invents_texture and find_instruction_set() not in EXACT_8_BITS:
        _log.info("%s: not in 8 bits here: this processor's sums of them may saturate", name)
        return None
    opened = partial(_open_int8, model, form, device)
    edition = f"{runtime} {form.record.sha256[:16]}"
    bar = RECORDED_BAR if invents_texture else INT8_BARS[precision]
    return Candidate("openvino", "int8", device.threads, edition, bar, opened)


def _open_float(model: LoadedModel, device: Device, precision: OpenVinoPrecision) -> OpenVinoEngine:
    if precision == "bfloat16" and not has_fast_bfloat16():
        raise RuntimeError("this CPU has no bfloat16 of its own")
    return _build(model, device, layers_of(state_of(model.network)), precision)


def _open_int8(model: LoadedModel, form: PreparedForm, device: Device) -> OpenVinoEngine:
    return _build(model, device, form.read(lambda: state_of(model.network)), "int8")


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
