"""The speed of a model on this machine: measured once and stored.

    tuning/speed-realesrgan-x4plus-auto-5f0c….json      the key it holds for, and the speed

What a picture's model depends on must not change by itself: a speed is measured when there is none
for the machine, the model and the settings, and again only when `forget_speed` was called.
"""

from collections.abc import Callable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from upscaled.config import Settings
from upscaled.upscale.engines import choose_device
from upscaled_models.autotune.cache import CacheFile, Key, Record, lock_folder
from upscaled_models.processor import describe_processor
from upscaled_models.registry import ModelSpec

FORMAT: Final = 1
"""Version of the measurement: where it changes, every machine measures again."""


class Speed(BaseModel):
    """What a window costs. s_per_px: device seconds for one of its pixels, halo included.
    deep_s_per_px: the same in float32, as windows of 16 bits a channel take it. window_px: its
    longest side. shape_step_px: as of `EngineInfo`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    s_per_px: float = Field(gt=0, allow_inf_nan=False)
    deep_s_per_px: float = Field(gt=0, allow_inf_nan=False)
    window_px: int = Field(ge=1)
    shape_step_px: int = Field(ge=1)


class SpeedRecord(Record):
    speed: Speed


def find_speed(settings: Settings, spec: ModelSpec, measure: Callable[[], Speed]) -> Speed:
    """Return the stored speed of a model; without one, measure it now and store that.

    Workers that start together measure once: the others wait and read. Raises what `measure` does.
    """
    file = _file(settings, spec)
    with lock_folder(file.path.parent):
        record = file.read()
        if record is not None:
            return record.speed
        speed = measure()
        file.write(speed=speed)
    return speed


def read_speed(settings: Settings, spec: ModelSpec) -> Speed | None:
    """Return the stored speed of a model; None without one for this machine and these settings."""
    record = _file(settings, spec).read()
    return None if record is None else record.speed


def forget_speed(settings: Settings, spec: ModelSpec) -> None:
    """Delete the stored speed, so that the next start measures it.

    Raises:
        OSError: the file cannot be deleted.
    """
    _file(settings, spec).path.unlink(missing_ok=True)


def _file(settings: Settings, spec: ModelSpec) -> CacheFile[SpeedRecord]:
    """Name the file of a speed by all that it depends on."""
    device = choose_device(settings)
    key: Key = {
        "format": FORMAT,
        "model": spec.weights_key,
        "sha256": [spec.sha256, spec.wdn.sha256] if spec.wdn else [spec.sha256],
        "precision": settings.precision,
        "tuning": str(settings.tuning),
        "processor": describe_processor(),
        "device": device.describe(),
        "threads": device.threads,
        "workers": settings.workers,
        "window_px": settings.tile_window_px,
        "halo_px": spec.halo_px,
    }
    name = f"speed-{spec.weights_key}-{settings.precision}"
    return CacheFile.of(settings.data_dir / "tuning", name, key, SpeedRecord)
