"""The ways a model may run on a device: one table of backends, and the candidates they make."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from upscaled_models.accuracy import FLOAT_BARS, INT8_BARS, RECORDED_BAR, Bar
from upscaled_models.backends.base import LoadedModel, Tunable
from upscaled_models.backends.cuda.engine import can_be_built, open_cuda
from upscaled_models.backends.cuda.kernel import digest as digest_kernel
from upscaled_models.backends.device import Device
from upscaled_models.backends.openvino.engine import (
    OpenVinoEngine,
    OpenVinoPrecision,
    open_openvino,
)
from upscaled_models.backends.openvino.layers import layers_of
from upscaled_models.backends.openvino.runtime import digest as digest_graphs
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.backends.torch.engine import TorchEngine, open_torch
from upscaled_models.errors import BackendUnavailable, WeightsError
from upscaled_models.processor import EXACT_8_BITS, count_physical_cores, find_instruction_set
from upscaled_models.quantise.files import PreparedForm, find_prepared
from upscaled_models.quantise.record import allowed_in
from upscaled_models.weights import state_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a model: a backend in a type, on a number of CPU threads.

    backend: "torch", "openvino" or "kernel". dtype: "float32", "bfloat16", "float16" or "int8".
    version: of the backend, and of a file of its own if it reads one: where it changes, the choice
    is made again. bar: what its picture must reach. open: makes the engine, weights in place; it
    may raise whatever the backend raises on this machine, and the candidate is then refused.
    """

    backend: str
    dtype: str
    threads: int
    version: str
    bar: Bar
    open: Callable[[], Tunable] = field(compare=False, repr=False)

    @property
    def label(self) -> str:
        return f"{self.backend} {self.dtype}"

    @property
    def name(self) -> str:
        """Return the label with the number of threads, in which alone some candidates differ."""
        return f"{self.label} on {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Backend:
    """A row of the table.

    dtypes: floating point types that are tried, by kind of device, the likeliest first. can_run:
    whether the backend can run a model's network. version: see `Candidate`. open: opens a model on
    a device, in the device's dtype.
    """

    dtypes: Mapping[str, Sequence[torch.dtype]]
    can_run: Callable[[LoadedModel], bool]
    version: Callable[[], str]
    open: Callable[[LoadedModel, Device], Tunable]

    def candidates(
        self, name: str, model: LoadedModel, device: Device, bar: Bar
    ) -> list[Candidate]:
        """List the candidates in floats; none where the backend is not installed."""
        dtypes = self.dtypes.get(device.torch_device.type, ())
        if not dtypes or not self.can_run(model):
            return []
        try:
            release = self.version()
        except PackageNotFoundError:
            return []
        return [
            self.candidate(name, model, replace(device, dtype=dtype), bar, release)
            for dtype in dtypes
        ]

    def candidate(
        self, name: str, model: LoadedModel, device: Device, bar: Bar, release: str
    ) -> Candidate:
        """Return the candidate in the device's dtype."""
        dtype = str(device.dtype).removeprefix("torch.")
        opener = partial(self.open, model, device)
        return Candidate(name, dtype, device.threads, release, bar, opener)


def _openvino_version() -> str:
    return f"{version('openvino')} {digest_graphs()}"


def _open_openvino_float(model: LoadedModel, device: Device) -> OpenVinoEngine:
    if device.dtype == torch.bfloat16 and not has_fast_bfloat16():
        raise BackendUnavailable("this CPU has no bfloat16 of its own")
    precision: OpenVinoPrecision = "bfloat16" if device.dtype == torch.bfloat16 else "float32"
    layers = layers_of(state_of(model.network))
    return open_openvino(model, _open_exact(model, device), layers, precision)


def _open_openvino_int8(model: LoadedModel, form: PreparedForm, device: Device) -> OpenVinoEngine:
    layers = form.read(lambda: state_of(model.network))
    return open_openvino(model, _open_exact(model, device), layers, "int8")


def _open_exact(model: LoadedModel, device: Device) -> TorchEngine:
    return open_torch(model, replace(device, dtype=torch.float32))


BACKENDS: Final[Mapping[str, Backend]] = {
    "openvino": Backend(
        dtypes={"cpu": (torch.bfloat16, torch.float32)},
        can_run=lambda model: model.spec.network.has_graph(model.spec.shape),
        version=_openvino_version,
        open=_open_openvino_float,
    ),
    "kernel": Backend(
        dtypes={"cuda": (torch.float16, torch.bfloat16)},
        can_run=lambda model: can_be_built(model.network),
        version=lambda: f"{torch.__version__} {digest_kernel()}",
        open=open_cuda,
    ),
    "torch": Backend(
        dtypes={
            "cuda": (torch.float16, torch.bfloat16),
            "mps": (torch.float16,),
            "cpu": (torch.bfloat16,),
        },
        can_run=lambda model: True,
        version=lambda: torch.__version__,
        open=open_torch,
    ),
}
"""Every backend, the likeliest first. Float32 by torch is the reference, which all run against."""


def float32_candidate(model: LoadedModel, device: Device) -> Candidate:
    """Make the reference: float32 by torch, whose picture all candidates must reach."""
    return _torch_candidate(model, replace(device, dtype=torch.float32), "auto")


def list_candidates(model: LoadedModel, device: Device, precision: str) -> list[Candidate]:
    """List every way to run a model in "auto" or "fast" but the reference, the likeliest first."""
    listed = []
    for name, backend in BACKENDS.items():
        listed += backend.candidates(name, model, device, FLOAT_BARS[precision])
    if device.is_cpu:
        listed = [*_int8_candidates(model, device, precision), *listed]
        listed += _on_fewer_threads(model, device, precision)
    return listed


def _on_fewer_threads(model: LoadedModel, device: Device, precision: str) -> list[Candidate]:
    """List torch on as many threads as there are physical cores, where those are fewer."""
    fewer = replace(device, threads=min(device.threads, count_physical_cores()))
    if fewer.threads == device.threads:
        return []
    dtypes = (torch.bfloat16, torch.float32)
    return [_torch_candidate(model, replace(fewer, dtype=dtype), precision) for dtype in dtypes]


def _torch_candidate(model: LoadedModel, device: Device, precision: str) -> Candidate:
    bar = FLOAT_BARS[precision]
    return BACKENDS["torch"].candidate("torch", model, device, bar, torch.__version__)


def _int8_candidates(model: LoadedModel, device: Device, precision: str) -> list[Candidate]:
    """List OpenVINO in 8 bits, where a form of the model is here and proven for `precision`."""
    name = model.spec.name
    if not model.spec.network.has_graph(model.spec.shape):
        return []
    try:
        release = _openvino_version()
        forms = find_prepared(model.spec, model.weights) if model.weights else []
    except PackageNotFoundError:
        return []
    except WeightsError as error:
        _log.warning("%s: not in 8 bits here: %s", name, error)
        return []
    if not forms:
        # A mix of two files has none of its own; what ships without was not near enough in 8 bits.
        if model.weights is not None and model.spec.source != "default":
            own_name = model.spec.weights_key
            text = "%s: not in 8 bits here; `upscaled models quantise %s` may make the file"
            _log.info(text, name, own_name)
        return []
    form = next((each for each in forms if allowed_in(each.record, precision)), None)
    if form is None:
        _log.info("%s: its 8 bits are not proven near enough for `%s`", name, precision)
        return []
    # A small picture's decibels say little of a network that invents texture.
    invents_texture = model.spec.network.invents_texture or form.record.proof.truth is not None
    if invents_texture and find_instruction_set() not in EXACT_8_BITS:
        _log.info("%s: not in 8 bits here: this processor's sums of them may saturate", name)
        return []
    bar = RECORDED_BAR if invents_texture else INT8_BARS[precision]
    opener = partial(_open_openvino_int8, model, form, device)
    release = f"{release} {form.record.sha256[:16]}"
    return [Candidate("openvino", "int8", device.threads, release, bar, opener)]
