"""A model opened in the way that was found fastest here, or is found now."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from models.kernels.compiled import KernelUnavailable
from service.config import Settings
from service.engine.device import Device
from service.engine.engine import Engine, round_up
from service.engine.kernel_candidates import kernel_candidates
from service.engine.loaded import LoadedModel
from service.engine.machine import describe_processor
from service.engine.openvino_candidates import openvino_candidates
from service.engine.torch_candidates import float32_candidate, torch_candidates
from service.engine.torch_engine import SHAPE_STEP_PX
from service.engine.tuning.attempts import Attempts
from service.engine.tuning.candidate import Candidate, Tunable
from service.engine.tuning.choice_file import (
    Choice,
    Key,
    choice_path,
    lock_folder,
    read_choice,
    write_choice,
)
from service.engine.tuning.tune import CUDA_EFFORT, EFFORT, Sizes, sizes_around, tune

FORMAT: Final = 4
"""Of the procedure: where it changes, every machine chooses again."""

_log = logging.getLogger(__name__)


def open_tuned(model: LoadedModel, device: Device, settings: Settings) -> Engine:
    """The model's engine by the choice stored in the data folder; without one, by choosing now.

    Workers that start together choose once: the others wait and read.

    Raises:
        InternalError: the model's result is not finite in float32.
        EngineOutOfMemory: not even a small picture fits.
    """
    reference, candidates, key, path = _what_is_known(model, device, settings)
    with lock_folder(path.parent):
        found = _open_stored(path, key, [*candidates, reference])
        if found is None:
            sizes = _sizes(model, device, settings)
            attempts = Attempts(path.with_suffix(".tried"))
            effort = CUDA_EFFORT if device.is_cuda else EFFORT
            found = tune(reference, candidates, sizes, settings.precision, attempts, effort)
            write_choice(path, key, found[0])
            attempts.forget()
    choice, engine = found
    _log.info("%s: %s", model.spec.name, choice.describe())
    for label, reason in choice.refused.items():
        _log.info("%s: not %s: %s", model.spec.name, label, reason)
    return engine.sized(
        window_px=choice.window_px, batch=choice.batch, proof=str(choice.proof or "")
    )


def has_stored_choice(model: LoadedModel, device: Device, settings: Settings) -> bool:
    """Whether `open_tuned` would open the model without measuring."""
    reference, candidates, key, path = _what_is_known(model, device, settings)
    choice = read_choice(path, key)
    return choice is not None and any(_is_chosen(each, choice) for each in (*candidates, reference))


def _what_is_known(
    model: LoadedModel, device: Device, settings: Settings
) -> tuple[Candidate, Sequence[Candidate], Key, Path]:
    """float32, everything else that may be chosen, what a choice depends on and where it lies."""
    reference = float32_candidate(model, device)
    candidates = list_candidates(model, device, settings.precision)
    key = make_key(model, device, settings, [reference, *candidates])
    name = f"{model.spec.file_owner}-{settings.precision}"
    return reference, candidates, key, choice_path(settings.data_dir / "tuning", name, key)


def _is_chosen(candidate: Candidate, choice: Choice) -> bool:
    return (candidate.runtime, candidate.dtype, candidate.threads) == (
        choice.runtime,
        choice.dtype,
        choice.threads,
    )


def list_candidates(model: LoadedModel, device: Device, precision: str) -> list[Candidate]:
    """Every way but float32 by torch, the likeliest first. `precision`: "auto" or "fast"."""
    return [
        *openvino_candidates(model, device, precision),
        *kernel_candidates(model, device),
        *torch_candidates(model, device),
    ]


def make_key(
    model: LoadedModel, device: Device, settings: Settings, candidates: Sequence[Candidate]
) -> Key:
    """All that a choice depends on."""
    spec = model.spec
    return {
        "format": FORMAT,
        "model": spec.file_owner,
        "sha256": [spec.sha256, spec.wdn.sha256] if spec.wdn else [spec.sha256],
        "denoise": settings.denoise if spec.wdn else 1.0,
        "precision": settings.precision,
        "processor": describe_processor(),
        "device": _describe_device(device),
        "threads": device.threads,
        "workers": settings.workers,
        "window_px": settings.tile_window_px,
        "candidates": [f"{each.label} {each.version} on {each.threads}" for each in candidates],
    }


def _open_stored(
    path: Path, key: Key, candidates: Sequence[Candidate]
) -> tuple[Choice, Tunable] | None:
    choice = read_choice(path, key)
    if choice is None:
        return None
    for candidate in candidates:
        if _is_chosen(candidate, choice):
            try:
                return choice, candidate.open()
            except KernelUnavailable as error:  # another driver, or an image without the bindings
                _log.warning("%s: %s, tuning again", path, error)
                return None
    _log.warning("%s: names no candidate, tuning again", path)
    return None


def _sizes(model: LoadedModel, device: Device, settings: Settings) -> Sizes:
    if device.is_cuda:
        batches: tuple[int, ...] = (1, 2, 4, 8)
    else:
        batches = (1,) if device.threads <= 4 else (1, 4)
    return sizes_around(
        model.window_px,
        model.spec.halo_px,
        round_up(SHAPE_STEP_PX, model.spec.multiple_px),
        is_fixed=bool(settings.tile_window_px),
        batches=batches,
    )


def _describe_device(device: Device) -> str:
    if device.is_cuda:
        return f"{torch.cuda.get_device_name(device.torch_device)} CUDA {torch.version.cuda}"
    return device.torch_device.type
