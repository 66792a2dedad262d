"""The speed of a model on this machine: measured once and stored.

    tuning/speed-realesrgan-x4plus-auto-5f0c….json      the key it holds for, and the speed

What a picture's model depends on must not change by itself: a speed is measured when there is none
for the machine, the model and the settings, and again only when `forget_speed` was called.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from upscaled.config import Settings
from upscaled.upscale.engines import choose_device
from upscaled_models.autotune.cache import Key, choice_path, lock_folder, make_private_folder
from upscaled_models.files import write_atomically
from upscaled_models.processor import describe_processor
from upscaled_models.registry import ModelSpec

FORMAT: Final = 1
"""Version of the measurement: where it changes, every machine measures again."""

_log = logging.getLogger(__name__)


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


class _Record(BaseModel):
    """The content of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: dict[str, str | int | float | list[str]]
    speed: Speed


def find_speed(settings: Settings, spec: ModelSpec, measure: Callable[[], Speed]) -> Speed:
    """Return the stored speed of a model; without one, measure it now and store that.

    Workers that start together measure once: the others wait and read. Raises what `measure` does.
    """
    key, path = _place(settings, spec)
    with lock_folder(path.parent):
        speed = _read(path, key)
        if speed is None:
            speed = measure()
            _write(path, key, speed)
    return speed


def read_speed(settings: Settings, spec: ModelSpec) -> Speed | None:
    """Return the stored speed of a model; None without one for this machine and these settings."""
    key, path = _place(settings, spec)
    return _read(path, key)


def forget_speed(settings: Settings, spec: ModelSpec) -> None:
    """Delete the stored speed, so that the next start measures it.

    Raises:
        OSError: the file cannot be deleted.
    """
    _, path = _place(settings, spec)
    path.unlink(missing_ok=True)


def _place(settings: Settings, spec: ModelSpec) -> tuple[Key, Path]:
    """Return all that a speed depends on, and the path of its file."""
    device = choose_device(settings)
    key: Key = {
        "format": FORMAT,
        "model": spec.file_owner,
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
    name = f"speed-{spec.file_owner}-{settings.precision}"
    return key, choice_path(settings.data_dir / "tuning", name, key)


def _read(path: Path, key: Key) -> Speed | None:
    try:
        record = _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).partition("\n")[0]
        _log.warning("%s: not readable, measuring again: %s", path, reason)
        return None
    return record.speed if record.key == json.loads(json.dumps(key)) else None


def _write(path: Path, key: Key, speed: Speed) -> None:
    try:
        make_private_folder(path.parent)
        record = _Record(key=dict(key), speed=speed)
        write_atomically(path, record.model_dump_json(indent=1).encode())
    except OSError as error:
        _log.warning("%s: cannot be stored, so the next start measures again: %s", path, error)
