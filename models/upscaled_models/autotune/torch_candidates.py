"""The ways torch may run a model on a device, for tuning to choose from."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import torch

from upscaled_models.autotune.accuracy import FLOAT_BARS
from upscaled_models.autotune.candidates import Candidate
from upscaled_models.backends.device import Device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.backends.torch.engine import Place, TorchEngine, build_engine
from upscaled_models.processor import count_physical_cores

_SHORT_DTYPES: Final = {
    "cuda": (torch.float16, torch.bfloat16),
    "mps": (torch.float16,),
    "cpu": (torch.bfloat16,),
}


def open_torch(
    model: LoadedModel, device: Device, *, runtime: str = "torch", place: Place | None = None
) -> TorchEngine:
    """The model on a device, in its dtype; its float32 network is shared, not copied, on a CPU.

    runtime, place: see `build_engine`.
    """
    return build_engine(
        model.network,
        device,
        model=model.spec.name,
        native_scale=model.spec.native_scale,
        window_px=model.window_px,
        halo_px=model.spec.halo_px,
        multiple_px=model.spec.multiple_px,
        takes_float32=True,
        runtime=runtime,
        place=place,
    )


def float32_candidate(model: LoadedModel, device: Device) -> Candidate:
    """What all others are held against."""
    return _candidate(model, replace(device, dtype=torch.float32), "auto")


def torch_candidates(model: LoadedModel, device: Device, precision: str) -> Sequence[Candidate]:
    """Shorter types, and where cores share their arithmetic also fewer threads."""
    short = [
        _candidate(model, replace(device, dtype=dtype), precision)
        for dtype in _SHORT_DTYPES.get(device.torch_device.type, ())
    ]
    if device.torch_device.type != "cpu":
        return short
    fewer = replace(device, threads=min(device.threads, count_physical_cores()))
    if fewer.threads == device.threads:
        return short
    dtypes = (torch.bfloat16, torch.float32)
    return [
        *short,
        *(_candidate(model, replace(fewer, dtype=dtype), precision) for dtype in dtypes),
    ]


def _candidate(model: LoadedModel, device: Device, precision: str) -> Candidate:
    return Candidate(
        runtime="torch",
        dtype=str(device.dtype).removeprefix("torch."),
        threads=device.threads,
        version=torch.__version__,
        bar=FLOAT_BARS[precision],
        open=partial(open_torch, model, device),
    )
