"""Open the engine of the settings: their model, their device and the size of the window."""

from typing import Final

from upscaled.config import Settings, SettingsError
from upscaled.config.values import kind_of
from upscaled.upscale.named_models import find_denoise, require_file
from upscaled_models.autotune.autotuner import Autotuner, TuningOptions
from upscaled_models.autotune.cache import Choice
from upscaled_models.backends.base import Engine, LoadedModel, least_window_px
from upscaled_models.backends.device import Device, limit_gpu_memory
from upscaled_models.backends.device import choose_device as find_device
from upscaled_models.backends.torch.engine import open_torch
from upscaled_models.errors import DeviceUnavailable
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore, check_scale
from upscaled_models.weights import load_network

_MIB: Final = 2**20


def choose_device(settings: Settings) -> Device:
    """Choose the device that the settings name, with this worker's share of the cores.

    One that this machine does not have is a SettingsError.
    """
    threads = settings.threads or settings.shared_cores
    name = kind_of(settings.devices[0])
    try:
        return find_device(name, is_exact=settings.precision == "exact", threads=threads)
    except DeviceUnavailable as error:
        raise SettingsError(f"UPSCALED_DEVICE={settings.device!r}: {error}") from error


def limit_memory(settings: Settings) -> None:
    """Limit how much memory of its NVIDIA GPU this process uses, where the settings do.

    Raises as `choose_device`.
    """
    device = choose_device(settings)
    if settings.gpu_memory_mb and device.is_cuda:
        limit_gpu_memory(str(device.torch_device), settings.gpu_memory_mb * _MIB)


def is_tuned(settings: Settings) -> bool:
    """Return whether the settings let the autotuner measure what is fastest."""
    return settings.precision != "exact" and settings.tuning


def open_model(settings: Settings, name: str) -> Engine:
    """Open a model that is on this machine, by its name, in the way that is fastest here.

    Raises:
        SettingsError: a device that is not here, no file of the model, or a window too small for
            it.
        ModelError: an unknown model, or a weights file that cannot be used.
        EngineError: the model's result is not finite in float32, or not even small images fit.
    """
    if not is_tuned(settings):
        return open_torch(load_model(settings, name), choose_device(settings))
    return open_autotuner(settings, name).open()


def open_known_model(settings: Settings, name: str) -> tuple[Engine, bool]:
    """Open a model without measuring anything, as the doctor does; raises as `open_model`.

    Also return whether a start would open just this engine. Where it would measure first, this one
    is float32 on CPUs and float16 on GPUs.
    """
    if not is_tuned(settings):
        return open_model(settings, name), True
    autotuner = open_autotuner(settings, name)
    if autotuner.find_choice() is None:
        return open_torch(autotuner.model, autotuner.device), False
    return autotuner.open(), True


def open_autotuner(settings: Settings, name: str) -> Autotuner:
    """Load a model for the autotuner; measures nothing.

    Raises:
        SettingsError, ModelError: as `open_model`.
    """
    options = TuningOptions(
        folder=settings.data_dir / "tuning",
        precision=settings.precision,
        workers=settings.workers,
        window_px=settings.tile_window_px,
        memory_mb=settings.gpu_memory_mb,
    )
    return Autotuner.of(load_model(settings, name), choose_device(settings), options)


def find_choice(settings: Settings, name: str) -> Choice | None:
    """Return what the autotuner has stored for a model, else None; raises as `open_autotuner`."""
    return open_autotuner(settings, name).find_choice() if is_tuned(settings) else None


def load_model(settings: Settings, name: str) -> LoadedModel:
    """Load a model's network, before a backend opens it; raises as `open_autotuner`."""
    device = choose_device(settings)
    store = ModelStore(settings.models_dir)
    spec = store.find(name)
    check_scale(spec)
    path = require_file(spec, store, f"model {name!r}")
    denoise = find_denoise(settings, spec)
    wdn_path = store.path(spec.wdn) if spec.wdn else None
    return LoadedModel(
        spec,
        load_network(spec, path, denoise=denoise, wdn_path=wdn_path),
        choose_window_px(settings, spec, is_cuda=device.is_cuda),
        weights=path if denoise == 1.0 else None,
        denoise=denoise,
    )


def choose_window_px(settings: Settings, spec: ModelSpec, *, is_cuda: bool) -> int:
    """Choose the side of a model's square windows: the setting, or what was measured for its kind.

    It is a multiple of the model's own multiple, large enough for a core between its halos, else
    SettingsError. Where a GPU's memory is limited, it is halved until a batch of one fits by the
    family's estimate.
    """
    least_px = least_window_px(spec.halo_px, spec.multiple_px)
    if settings.tile_window_px and settings.tile_window_px < least_px:
        raise SettingsError(
            f"UPSCALED_TILE_WINDOW_PX={settings.tile_window_px}: {spec.name} needs at least "
            f"{least_px}"
        )
    usual_px = spec.network.window_px(spec.shape, is_cuda=is_cuda, is_tuned=is_tuned(settings))
    if is_cuda and settings.gpu_memory_mb:
        most_px = settings.gpu_memory_mb * _MIB // spec.network.cuda_bytes_per_px(spec.shape)
        while usual_px**2 > most_px and usual_px > least_px:
            usual_px //= 2
    wanted_px = max(least_px, settings.tile_window_px or usual_px)
    return wanted_px // spec.multiple_px * spec.multiple_px
