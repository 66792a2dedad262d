"""Open a model in the way that was found fastest on this machine, or is found now."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from upscaled.config import Settings
from upscaled_models.autotune.attempts import Attempts
from upscaled_models.autotune.cache import (
    Choice,
    Key,
    choice_path,
    lock_folder,
    read_choice,
    write_choice,
)
from upscaled_models.autotune.candidates import Candidate, Tunable
from upscaled_models.autotune.cuda_candidates import kernel_candidates
from upscaled_models.autotune.defaults import find_instruction_set, likeliest, likeliest_first
from upscaled_models.autotune.likely import take_likeliest
from upscaled_models.autotune.load import read_load
from upscaled_models.autotune.openvino_candidates import openvino_candidates
from upscaled_models.autotune.race import Steps, drive
from upscaled_models.autotune.search import (
    CUDA_START,
    CUDA_UNHURRIED,
    START,
    UNHURRIED,
    Options,
    Sizes,
    sizes_around,
    tune,
)
from upscaled_models.autotune.timing import Meter, ProcessMeter
from upscaled_models.autotune.torch_candidates import float32_candidate, torch_candidates
from upscaled_models.backends.base import Engine, round_up
from upscaled_models.backends.cuda.kernel import KernelUnavailable
from upscaled_models.backends.device import Device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.backends.torch.engine import SHAPE_STEP_PX
from upscaled_models.processor import describe_processor

FORMAT: Final = 5
"""Of the procedure: where it changes, every machine chooses again."""

SLOW_WEIGHTS: Final = 2_000_000
"""Models with more are too slow on a CPU to be raced at a start: x4plus has 16.7 million and takes
125 us of two cores for a pixel in float32, general-x4v3 has 1.2 million and takes 8 us."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known before anything is measured.

    order: labels of what may be taken unmeasured, the likeliest first. key, path: of the choice
    that is stored.
    """

    options: Options
    order: Sequence[str]
    key: Key
    path: Path

    @property
    def candidates(self) -> Sequence[Candidate]:
        """With float32."""
        return (*self.options.candidates, self.options.reference)

    @property
    def attempts(self) -> Attempts:
        return Attempts(self.path.with_suffix(".tried"))


def open_tuned(model: LoadedModel, device: Device, settings: Settings) -> Engine:
    """The model's engine by the choice stored in the data folder; without one, by choosing now.

    Workers that start together choose once: the others wait and read.

    Raises:
        InternalError: the model's result is not finite in float32.
        EngineOutOfMemory: not even a small picture fits.
    """
    known = describe_options(model, device, settings)
    with lock_folder(known.path.parent):
        found = _open_stored(known)
        if found is None:
            found = _choose_now(known, device)
            store(known, found[0])
    choice, engine = found
    log_choice(model, choice)
    return fit(engine, choice)


def find_choice(model: LoadedModel, device: Device, settings: Settings) -> Choice | None:
    """The stored choice by which `open_tuned` would open the model without measuring."""
    known = describe_options(model, device, settings)
    choice = read_choice(known.path, known.key)
    is_known = choice is not None and any(_is_chosen(each, choice) for each in known.candidates)
    return choice if is_known else None


def has_stored_choice(model: LoadedModel, device: Device, settings: Settings) -> bool:
    """Whether `open_tuned` would open the model without measuring."""
    return find_choice(model, device, settings) is not None


def measure(known: Known, device: Device) -> Steps[tuple[Choice, Tunable]]:
    """Race all candidates and sizes, however long it takes; stores nothing.

    Raises:
        as `open_tuned`.
    """
    effort = CUDA_UNHURRIED if device.is_cuda else UNHURRIED
    return tune(known.options, make_meter(device), effort, known.attempts)


def open_by(known: Known, choice: Choice) -> Engine | None:
    """The engine of a stored choice; None where it cannot be opened here."""
    opened = _open_by(known, choice)
    return None if opened is None else fit(opened, choice)


def store(known: Known, choice: Choice) -> None:
    """Keep a choice for the next start."""
    write_choice(known.path, known.key, choice)
    known.attempts.forget()


def fit(engine: Tunable, choice: Choice) -> Engine:
    """The engine in the sizes that were chosen."""
    return engine.sized(
        window_px=choice.window_px, batch=choice.batch, proof=str(choice.proof or "")
    )


def log_choice(model: LoadedModel, choice: Choice) -> None:
    """Say what runs, and why nothing else does."""
    _log.info("%s: %s", model.spec.name, choice.describe())
    for name, reason in choice.refused.items():
        _log.info("%s: not %s: %s", model.spec.name, name, reason)


def describe_options(model: LoadedModel, device: Device, settings: Settings) -> Known:
    """What may be chosen for a model here, what the choice depends on and where it lies."""
    reference = float32_candidate(model, device)
    listed = list_candidates(model, device, settings.precision)
    key = make_key(model, device, settings, [reference, *listed])
    name = f"{model.spec.file_owner}-{settings.precision}"
    is_cpu = device.torch_device.type == "cpu"
    order = likeliest(model.spec.family) if is_cpu else ()
    options = Options(
        reference,
        likeliest_first(listed, order),
        _sizes(model, device, settings),
        is_slow=is_cpu and _count_weights(model) > SLOW_WEIGHTS,
    )
    return Known(options, order, key, choice_path(settings.data_dir / "tuning", name, key))


def make_meter(device: Device) -> Meter:
    """Of the device that computes."""
    return ProcessMeter(is_cpu=device.torch_device.type == "cpu")


def _choose_now(known: Known, device: Device) -> tuple[Choice, Tunable]:
    """At a start: by a short race, or where that would take long, by the table."""
    reason = ""
    if known.options.is_slow:
        reason = "its windows take seconds, so it is measured when the service is idle"
    elif device.torch_device.type == "cpu" and (load := read_load()).is_busy:
        reason = f"the machine was busy ({load})"
    if reason:
        reason = f"{find_instruction_set()}; {reason}"
        return take_likeliest(
            known.options, known.order, reason, make_meter(device), known.attempts
        )
    effort = CUDA_START if device.is_cuda else START
    return drive(tune(known.options, make_meter(device), effort, known.attempts))


def _count_weights(model: LoadedModel) -> int:
    """About half of the operations for each pixel: most weights are used once for each."""
    return sum(each.numel() for each in model.network.parameters())


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
        *kernel_candidates(model, device, precision),
        *torch_candidates(model, device, precision),
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
        "device": describe_device(device),
        "threads": device.threads,
        "workers": settings.workers,
        "window_px": settings.tile_window_px,
        "candidates": [f"{each.label} {each.version} on {each.threads}" for each in candidates],
    }


def _open_stored(known: Known) -> tuple[Choice, Tunable] | None:
    choice = read_choice(known.path, known.key)
    if choice is None:
        return None
    engine = _open_by(known, choice)
    return None if engine is None else (choice, engine)


def _open_by(known: Known, choice: Choice) -> Tunable | None:
    for candidate in known.candidates:
        if _is_chosen(candidate, choice):
            try:
                return candidate.open()
            except KernelUnavailable as error:  # another driver, or an image without the bindings
                _log.warning("%s: %s, tuning again", known.path, error)
                return None
    _log.warning("%s: names no candidate, tuning again", known.path)
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


def describe_device(device: Device) -> str:
    if device.is_cuda:
        return f"{torch.cuda.get_device_name(device.torch_device)} CUDA {torch.version.cuda}"
    return device.torch_device.type
