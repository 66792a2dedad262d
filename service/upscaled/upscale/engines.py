"""From settings to a running engine: which model, on which device, through which window."""

from pathlib import Path
from typing import Final

from upscaled.config import Settings, SettingsError
from upscaled_models.autotune.autotuner import find_choice, has_stored_choice, open_tuned
from upscaled_models.autotune.torch_candidates import open_torch
from upscaled_models.backends.base import Engine, least_window_px
from upscaled_models.backends.device import Device, choose_device
from upscaled_models.backends.loaded import LoadedModel
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore, check_scale
from upscaled_models.weights import load_network

MAX_QUICK_BLOCKS: Final = 6
"""RRDB networks of more are too slow in float32 for windows that a cancelled request waits for."""


def open_model(settings: Settings, name: str) -> Engine:
    """The engine of a model that is here, by its name, its weights placed on the device.

    Raises:
        SettingsError: a device that is not here, no file of the model, or a window too small for
            it.
        ModelError: an unknown model, or a weights file that cannot be used.
        InternalError: the model's result is not finite in float32.
    """
    return _open(*load_model(settings, name), settings)


def load_model(settings: Settings, name: str) -> tuple[LoadedModel, Device]:
    """A model that is here, in memory, and the device that it is to run on.

    Raises:
        as `open_model`.
    """
    device = choose_device(settings)
    store = ModelStore(settings.models_dir)
    spec = store.find(name)
    check_scale(spec)
    path = _require_file(spec, store, f"model {name!r}")
    return _load(settings, store, spec, path, device), device


def open_known_model(settings: Settings, name: str) -> tuple[Engine, bool]:
    """`open_model` without measuring: (engine, whether a start would open just this one).

    Where a start would measure first, this one is float32 on CPUs and float16 on GPUs.

    Raises:
        as `open_model`.
    """
    return _open_known(*load_model(settings, name), settings)


def find_unsettled(settings: Settings, name: str) -> str:
    """Why the stored choice of a model is to be measured again; "" where there is none, or it is
    settled.

    Raises:
        as `open_model`, but for `InternalError`.
    """
    if not is_tuned(settings):
        return ""
    choice = find_choice(*load_model(settings, name), settings)
    return "" if choice is None else choice.unsettled


def find_cost_s(settings: Settings, name: str) -> float | None:
    """Seconds for a pixel of a window of a model, as they were measured when it was chosen how the
    model runs; None where nothing was chosen.

    Raises:
        as `open_model`, but for `InternalError`.
    """
    choice = find_choice(*load_model(settings, name), settings) if is_tuned(settings) else None
    return None if choice is None else choice.ns_per_px * 1e-9


def open_engine(settings: Settings, scale: int, *, asked_by: str | None = None) -> Engine:
    """The engine of the model that the settings name for a scale, or of the shipped one.

    Args:
        scale: 2 or 4.
        asked_by: what gave the settings their model for this scale, where it was not its variable;
            error texts name it.

    Raises:
        SettingsError: a device or a model that is not here, or a window too small for the model.
        ModelError: an unknown model, or a weights file that cannot be used.
        InternalError: the model's result is not finite in float32.
    """
    return _open(*_load_model(settings, scale, asked_by), settings)


def open_known_engine(settings: Settings, scale: int) -> tuple[Engine, bool]:
    """As `open_known_model`, for the model of a scale.

    Raises:
        as `open_engine`.
    """
    return _open_known(*_load_model(settings, scale, None), settings)


def _open(model: LoadedModel, device: Device, settings: Settings) -> Engine:
    if not is_tuned(settings):
        return open_torch(model, device)
    return open_tuned(model, device, settings)


def _open_known(model: LoadedModel, device: Device, settings: Settings) -> tuple[Engine, bool]:
    if not is_tuned(settings):
        return open_torch(model, device), True
    if not has_stored_choice(model, device, settings):
        return open_torch(model, device), False
    return open_tuned(model, device, settings), True


def is_tuned(settings: Settings) -> bool:
    """Whether what is fastest is measured, within the precision."""
    return settings.precision != "exact" and settings.tuning


def _load_model(settings: Settings, scale: int, asked_by: str | None) -> tuple[LoadedModel, Device]:
    device = choose_device(settings)
    store = ModelStore(settings.models_dir)
    spec, path = choose_model(settings, scale, store, asked_by=asked_by)
    return _load(settings, store, spec, path, device), device


def _load(
    settings: Settings, store: ModelStore, spec: ModelSpec, path: Path, device: Device
) -> LoadedModel:
    return LoadedModel(
        spec,
        load_network(
            spec, path, denoise=settings.denoise if spec.wdn else 1.0, wdn_path=_wdn(spec, store)
        ),
        choose_window_px(settings, spec, is_cuda=device.is_cuda),
        weights=path if spec.wdn is None or settings.denoise == 1.0 else None,
    )


def choose_model(
    settings: Settings, scale: int, store: ModelStore, *, asked_by: str | None = None
) -> tuple[ModelSpec, Path]:
    """The model that the settings name for a scale, or the shipped one, and its file.

    Args:
        asked_by: as for `open_engine`.

    Raises:
        UnknownModel: the settings name a model that does not exist.
        ModelRefused: they name one with which x2 and x4 cannot both be made.
        SettingsError: its file is not here, or the shipped one's is not.
    """
    name = settings.model_x2 if scale == 2 else settings.model_x4
    setting = f"{asked_by or f'UPSCALED_MODEL_X{scale}'}={name!r}"
    if name != "auto":
        spec = store.find(name)
        check_scale(spec)
        return spec, _require_file(spec, store, setting)
    spec = store.find(f"upscaled-x{scale}")
    path = store.path(spec)
    if path is None:
        raise SettingsError(
            f"{setting}: {store.target(spec)} is not here; the installation is damaged"
        )
    return spec, path


def choose_window_px(settings: Settings, spec: ModelSpec, *, is_cuda: bool) -> int:
    """The longest window side for a model: the setting, or what was measured for its kind.

    A multiple of the model's own multiple, with room for a core between its halos.

    Raises:
        SettingsError: the setting leaves no such room.
    """
    least_px = least_window_px(spec.halo_px, spec.multiple_px)
    if settings.tile_window_px and settings.tile_window_px < least_px:
        raise SettingsError(
            f"UPSCALED_TILE_WINDOW_PX={settings.tile_window_px}: {spec.name} needs at least "
            f"{least_px}"
        )
    usual_px = _measured_window_px(spec, is_cuda=is_cuda, is_tuned=is_tuned(settings))
    wanted_px = max(least_px, settings.tile_window_px or usual_px)
    return wanted_px // spec.multiple_px * spec.multiple_px


def _measured_window_px(spec: ModelSpec, *, is_cuda: bool, is_tuned: bool) -> int:
    """On CUDA two windows of 800 px side by side make the longest side at x4 (816 px with RRDB's
    halo), and take 4 GB with RRDB; where that is too much, half of it is tried.

    On two CPU cores 512x512 through general-x4v3 (srvgg) is 1.7 times the arithmetic in windows of
    256 px, for their halos: float32 takes 5.4 s so and 4.3 s in 512 px, though large windows fit
    the caches worse; the smaller networks (plain) win nothing over 384 px in float32, but do in
    shorter types, which only tuning takes.

    RRDB's windows are in trunk pixels: with 23 blocks those of 256 keep 28 % of what they compute,
    384 47 %, 512 59 %, and a picture as large as the window all of it. 512 takes 10 s in 8 bits;
    tuning takes less where a batch would be longer than it allows. Float32 without tuning takes
    13 s for 256, 4 s with 6 blocks. Memory is 2 kB for a trunk pixel, 600 MB at 512 (OpenVINO).

    RealPLKSR costs 0.4 of x4plus for a pixel: 512 px take about 9 s in bfloat16. Its group
    normalisation wants windows as wide as can be waited for.
    """
    if spec.family == "rrdb":
        is_slow = not is_tuned and int(spec.shape["num_block"]) > MAX_QUICK_BLOCKS
        return spec.multiple_px * (816 if is_cuda else 256 if is_slow else 512)
    if is_cuda:
        return 800
    return 512 if is_tuned or spec.family == "srvgg" else 384


def _require_file(spec: ModelSpec, store: ModelStore, setting: str) -> Path:
    path = store.path(spec)
    if path is None:
        raise SettingsError(
            f"{setting}: {store.target(spec)} is not there; get it with "
            f"`upscaled models fetch {spec.name}`"
        )
    return path


def _wdn(spec: ModelSpec, store: ModelStore) -> Path | None:
    return store.path(spec.wdn) if spec.wdn else None
