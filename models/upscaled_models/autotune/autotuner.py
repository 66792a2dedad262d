"""The autotuner: open a model in the way that is fastest on this machine, measured once and stored.

Autotuner.of(model, device, options)     the candidates, and the file of the choice cache
    .open()      by the stored choice; without one, by a short race or the shipped defaults
    .measure()   race all candidates, without a limit of time
    .store()     keep a choice for the next start
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled_models.autotune.cache import CacheFile, Choice, ChoiceRecord, Key, lock_folder
from upscaled_models.autotune.candidates import Candidate, float32_candidate, list_candidates
from upscaled_models.autotune.defaults import choose_likeliest, likeliest, likeliest_first
from upscaled_models.autotune.race import Steps, drive
from upscaled_models.autotune.search import Search
from upscaled_models.autotune.space import (
    CUDA_IDLE,
    CUDA_START,
    IDLE,
    START,
    SearchSpace,
    sizes_for,
)
from upscaled_models.autotune.timing import Meter, ProcessMeter, read_load
from upscaled_models.autotune.trial import Attempts
from upscaled_models.backends.base import Engine, LoadedModel, Tunable
from upscaled_models.backends.device import Device
from upscaled_models.errors import BackendUnavailable
from upscaled_models.processor import describe_processor, find_instruction_set

FORMAT: Final = 5
"""Version of the procedure: where it changes, every machine measures again."""

SLOW_WEIGHTS: Final = 2_000_000
"""Models with more are too slow on a CPU to be raced at a start. Weights are about half of the
operations for a pixel, most being used once for each: x4plus has 16.7 million and takes
125 us of two cores for a pixel in float32, general-x4v3 has 1.2 million and takes 8 us."""

UNMEASURED_ON_GPUS: Final = ("torch float16", "torch bfloat16")
"""Labels of what may be used unmeasured on a GPU: our kernel would have to be compiled first."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """The settings that a choice depends on, beside the model, the device and the machine.

    folder: of the choice cache. precision: "auto" or "fast". workers: processes that share the
    machine. window_px: the side that windows are fixed to; 0: the fastest. memory_mb: what a
    process may use of its GPU; 0: all.
    """

    folder: Path
    precision: str
    workers: int = 1
    window_px: int = 0
    memory_mb: int = 0


@dataclass(frozen=True, slots=True)
class Autotuner:
    """The autotuner of one model on this machine.

    order: labels of what may be used unmeasured, the likeliest first. file: of the stored choice.
    """

    model: LoadedModel
    device: Device
    space: SearchSpace
    order: Sequence[str]
    file: CacheFile[ChoiceRecord]

    @classmethod
    def of(cls, model: LoadedModel, device: Device, options: TuningOptions) -> "Autotuner":
        """List what may be chosen for a model here, and what the choice depends on."""
        reference = float32_candidate(model, device)
        listed = list_candidates(model, device, options.precision)
        order = likeliest(model.spec.family) if device.is_cpu else ()
        sizes = sizes_for(model, device, is_fixed=bool(options.window_px))
        weights = sum(each.numel() for each in model.network.parameters())
        is_slow = device.is_cpu and weights > SLOW_WEIGHTS
        space = SearchSpace(reference, likeliest_first(listed, order), sizes, is_slow)
        key = make_key(model, device, options, [reference, *listed])
        name = f"{model.spec.weights_key}-{options.precision}"
        file = CacheFile.of(options.folder, name, key, ChoiceRecord)
        return cls(model, device, space, order, file)

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Return all candidates, with the reference."""
        return (*self.space.candidates, self.space.reference)

    @property
    def attempts(self) -> Attempts:
        return Attempts(self.file.path.with_suffix(".tried"))

    @property
    def _meter(self) -> Meter:
        return ProcessMeter(is_cpu=self.device.is_cpu)

    def read_stored(self) -> Choice | None:
        """Read the stored choice, though it may name no candidate."""
        record = self.file.read()
        return None if record is None else record.choice

    def open(self) -> Engine:
        """Open the model by the stored choice; without one, choose now and store that.

        Processes that start together choose once: the others wait and read.

        Raises:
            ResultNotFinite: the model's result is not finite, not even in float32.
            EngineOutOfMemory: not even a small picture fits.
        """
        with lock_folder(self.file.path.parent):
            choice = self.read_stored()
            engine = self._open_by(choice) if choice else None
            if choice is None or engine is None:
                choice, engine = self._choose()
                self._write(choice)
        self.log(choice)
        return fit(engine, choice)

    def find_choice(self) -> Choice | None:
        """Return the stored choice by which `open` would open the model without measuring."""
        choice = self.read_stored()
        return choice if choice is not None and self._find_candidate(choice) else None

    def open_by(self, choice: Choice) -> Engine | None:
        """Open the model by a stored choice; None where it cannot be opened here."""
        engine = self._open_by(choice)
        return None if engine is None else fit(engine, choice)

    def measure(self) -> Steps[tuple[Choice, Tunable]]:
        """Race all candidates and sizes without a limit of time; stores nothing."""
        effort = CUDA_IDLE if self.device.is_cuda else IDLE
        return Search(self.space, self._meter, effort, self.attempts).run()

    def store(self, choice: Choice) -> None:
        """Keep a choice for the next start, and for processes that run this model now."""
        with lock_folder(self.file.path.parent):
            self._write(choice)

    def log(self, choice: Choice) -> None:
        """Log what runs, and why nothing else does."""
        name = self.model.spec.name
        _log.info("%s: %s", name, choice.describe())
        for refused, reason in choice.refused.items():
            _log.info("%s: not %s: %s", name, refused, reason)

    def _write(self, choice: Choice) -> None:
        self.file.write(choice=choice)
        self.attempts.forget()

    def _choose(self) -> tuple[Choice, Tunable]:
        """Choose at a start: by a short race, or where that would take long, by the defaults."""
        reason = ""
        if self.model.spec.denoise is not None:
            reason = "a request waits for this strength of denoising"
        elif self.space.is_slow:
            reason = "its windows take seconds, so it is measured when the service is idle"
        elif self.device.is_cpu and (load := read_load()).is_busy:
            reason = f"the machine was busy ({load})"
        if reason:
            reason = f"{find_instruction_set() if self.device.is_cpu else 'a GPU'}; {reason}"
            order = self.order or UNMEASURED_ON_GPUS
            return choose_likeliest(self.space, order, reason, self._meter, self.attempts)
        effort = CUDA_START if self.device.is_cuda else START
        return drive(Search(self.space, self._meter, effort, self.attempts).run())

    def _open_by(self, choice: Choice) -> Tunable | None:
        candidate = self._find_candidate(choice)
        if candidate is None:
            _log.warning("%s: names no candidate, measuring again", self.file.path)
            return None
        try:
            return candidate.open()
        except BackendUnavailable as error:  # another driver, or an image without the bindings
            _log.warning("%s: %s, measuring again", self.file.path, error)
            return None

    def _find_candidate(self, choice: Choice) -> Candidate | None:
        for each in self.candidates:
            if (each.label, each.threads) == (choice.label, choice.threads):
                return each
        return None


def fit(engine: Tunable, choice: Choice) -> Engine:
    """Give an engine the sizes that were chosen."""
    return engine.sized(
        window_px=choice.window_px, batch=choice.batch, proof=str(choice.proof or "")
    )


def make_key(
    model: LoadedModel, device: Device, options: TuningOptions, candidates: Sequence[Candidate]
) -> Key:
    """List all that a choice depends on."""
    spec = model.spec
    limits = {"memory_mb": options.memory_mb} if device.is_cuda and options.memory_mb else {}
    return {
        **limits,
        "format": FORMAT,
        "model": spec.weights_key,
        "sha256": spec.hashes,
        "denoise": model.denoise,
        "precision": options.precision,
        "processor": describe_processor(),
        "device": device.describe(),
        "threads": device.threads,
        "workers": options.workers,
        "window_px": options.window_px,
        "candidates": [f"{each.label} {each.version} on {each.threads}" for each in candidates],
    }
