"""List the models on this machine, and read the request header that names one of them.

The files are looked at anew for each such request: a model that was added or removed while
the service runs counts at once.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from upscaled.config import SCALES, Settings
from upscaled.errors import InvalidParameter
from upscaled.upscale.denoise import name_denoised
from upscaled.upscale.model_choice import AUTO
from upscaled_models.errors import ModelError, ModelRefused
from upscaled_models.registry import ModelSpec, makes_every_scale
from upscaled_models.store import MAX_NAME_CHARACTERS, NAME_PATTERN, ModelStore

MODEL_HEADER: Final = "X-Upscale-Model"
"""In a request, the model to use; in an answer, the model that was used."""
DENOISE_HEADER: Final = "X-Upscale-Denoise"
"""In a request, the strength of denoising; in an answer, the one that was used."""
TEMPERED_HEADER: Final = "X-Upscale-Tempered-With"
"""In an answer, the faithful model that the result was mixed with; absent where it was not."""

_NAME: Final = re.compile(NAME_PATTERN)


def read_available_models(models_dir: Path) -> tuple[ModelSpec, ...]:
    """Read which models have their files here, in the order of `upscaled models list`.

    A model whose record is damaged is left out; `upscaled doctor` reports it. Reads the disk.

    Raises:
        ModelError: the manifest of the shipped models is damaged.
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


def parse_model_header(values: Sequence[str]) -> str:
    """Return the model that a request names; "" where it names none, or `auto`.

    Args:
        values: one for each header of that name, without white space around.

    Raises:
        InvalidParameter: several headers, or a value that no model can have as its name. The value
            is not repeated in the text: it may hold anything.
    """
    if not values:
        return ""
    if len(values) > 1:
        raise InvalidParameter(f"{MODEL_HEADER} must be sent once")
    (name,) = values
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{MODEL_HEADER} must be {AUTO} or the name of one model: at most "
            f"{MAX_NAME_CHARACTERS} letters, digits, dots, hyphens and underscores"
        )
    return "" if name == AUTO else name


MODEL_PARAMETER: Final[dict[str, Any]] = {
    "name": MODEL_HEADER,
    "in": "header",
    "required": False,
    "description": "The model to take, one that `GET /v1/models` lists, or `auto`, which is "
    "the same as no header: the best model that the server can afford for the picture. A "
    "model that is not present, or is named twice, is `invalid_parameter`; nothing is charged.",
    "schema": {
        "type": "string",
        "pattern": f"^{NAME_PATTERN}$",
        "maxLength": MAX_NAME_CHARACTERS,
        "default": AUTO,
    },
}
"""The header as an OpenAPI parameter."""


def require_model(name: str, scale: int, models_dir: Path) -> None:
    """Refuse a model that is not here or cannot make the scale. Reads the disk.

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
    """Return the name of the model at a strength of denoising. Reads the disk.

    Args:
        model: the one that the request names; "" for the server's own choice.

    Raises:
        InvalidParameter: the model has no such choice, or a file that it needs is not here.
    """
    try:
        return name_denoised(settings, scale, model, strength)
    except ModelRefused as error:
        raise InvalidParameter(f"{DENOISE_HEADER}: {error}") from None
