"""Decide which models take a strength of denoising, and name a model at a strength.

The command line, requests and Python code all decide it here: a strength belongs to a model that
the request or the settings name, and the choice of `auto` has none. Loads neither torch nor numpy.
"""

from upscaled.config import Settings
from upscaled_models.errors import ModelRefused
from upscaled_models.registry import ModelSpec, name_strength, official_models, split_strength
from upscaled_models.store import ModelStore


def require_denoise(model: str) -> None:
    """Raise ModelRefused for a model without a strength of denoising; "auto" has none."""
    able = [spec.name for spec in official_models() if spec.wdn is not None]
    if model not in able:
        raise ModelRefused(f"{model} has no strength of denoising; {' or '.join(able)} has")


def name_denoised(settings: Settings, scale: int, model: str, strength: float) -> str:
    """Return the name of a model, "" for that of the settings, at a strength. Reads the disk.

    strength: from 0, which keeps noise, to 1, which removes it most; rounded to a tenth.

    Raises:
        ModelRefused: the model has no such choice, or a file that it needs is not here.
    """
    own_name, _ = split_strength(model or settings.model_for(scale))
    require_denoise(own_name)
    name = name_strength(own_name, strength)
    store = ModelStore(settings.models_dir)
    for each in store.missing(store.find(name)):
        part = split_strength(each.name)[0]
        raise ModelRefused(f"the weights of {part}, which it needs, are not here")
    return name


def find_strength(settings: Settings, spec: ModelSpec) -> float:
    """Return the share of a model's own weights in the mix; 1 for a model without a partner."""
    if spec.wdn is None:
        return 1.0
    return settings.denoise if spec.denoise is None else spec.denoise
