"""List the models on this machine, and refuse a request that names another one.

The files are looked at anew for each such request: a model that was added or removed while
the service runs counts at once.
"""

from pathlib import Path

from upscaled.api.request.choices import DENOISE_HEADER, MODEL_HEADER
from upscaled.config import SCALES, Settings
from upscaled.errors import InvalidParameter
from upscaled.upscale.named_models import name_denoised
from upscaled_models.errors import ModelError, ModelRefused
from upscaled_models.registry import ModelSpec, makes_every_scale
from upscaled_models.store import ModelStore


def read_available_models(models_dir: Path) -> tuple[ModelSpec, ...]:
    """Read which models have their files installed, in the order of `upscaled models list`.

    A model whose record is damaged is left out; `upscaled doctor` reports it. A damaged manifest of
    the shipped ones raises ModelError. Reads the disk.
    """
    store = ModelStore(models_dir)
    present = []
    for name in store.names():
        try:
            spec = store.find(name)
        except ModelError:
            continue
        if store.path(spec) is not None:
            present.append(spec)
    return tuple(present)


def scales_of(spec: ModelSpec) -> tuple[int, ...]:
    """Return the scales that a model can make, by running twice or by averaging its result."""
    return SCALES if makes_every_scale(spec.native_scale) else ()


def require_model(name: str, scale: int, models_dir: Path) -> None:
    """Refuse a model that is not installed or cannot make the scale. Reads the disk.

    Raises:
        InvalidParameter: the text says which of the two, and where the names are.
    """
    spec = next((each for each in read_available_models(models_dir) if each.name == name), None)
    if spec is None:
        raise InvalidParameter(
            f"{MODEL_HEADER}: there is no model {name} here; GET /v1/models lists those that are"
        )
    if scale not in scales_of(spec):
        raise InvalidParameter(
            f"{MODEL_HEADER}: {name}, a model of scale {spec.native_scale}, cannot make scale "
            f"{scale}"
        )


def require_denoise(model: str, strength: float, scale: int, settings: Settings) -> str:
    """Return the name of a model ("": of the server's choice) at a strength of denoising.

    Raises:
        InvalidParameter: the model has no such choice, or a file that it needs is not here.
    """
    try:
        return name_denoised(settings, scale, model, strength)
    except ModelRefused as error:
        raise InvalidParameter(f"{DENOISE_HEADER}: {error}") from None
