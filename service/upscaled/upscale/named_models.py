"""Find the models that settings and requests name, at a strength of denoising where they name one.

A strength belongs to a model that the request or the settings name, and the choice of `auto` has
none: the command line, requests and Python code all decide it here. Loads neither torch nor numpy.
"""

from pathlib import Path

from upscaled.config import SCALES, Settings, SettingsError
from upscaled.upscale.model_choice import AUTO
from upscaled_models.errors import ModelError, ModelRefused
from upscaled_models.registry import ModelSpec, name_strength, official_models, split_strength
from upscaled_models.store import ModelStore, check_scale


def require_models(settings: Settings) -> None:
    """Raise as `choose_model` for the models of both scales, without waiting for torch."""
    store = ModelStore(settings.models_dir)
    for scale in SCALES:
        choose_model(settings, scale, store)


def choose_model(
    settings: Settings, scale: int, store: ModelStore, *, named_by: str | None = None
) -> ModelSpec:
    """Choose the model that the settings name for a scale, or the shipped default.

    named_by: what named the model, where it was not the scale's variable; error texts name it.

    Raises:
        UnknownModel: the settings name a model that does not exist.
        ModelRefused: they name one with which x2 and x4 cannot both be made.
        SettingsError: its file is not here, or one of the shipped ones' is not.
    """
    name = settings.model_for(scale)
    setting = f"{named_by or f'UPSCALED_MODEL_X{scale}'}={name!r}"
    if name != AUTO:
        try:
            spec = store.find(name)
            check_scale(spec)
        except ModelError as error:
            raise type(error)(f"{setting}: {error}") from None
        require_file(spec, store, setting)
        return spec
    shipped = [store.find(f"upscaled-x{scale}{suffix}") for suffix in ("", "-faithful")]
    for each in shipped:
        if store.path(each) is None:
            raise SettingsError(
                f"{setting}: {store.target(each)} is not here; the installation is damaged"
            )
    return shipped[0]


def require_file(spec: ModelSpec, store: ModelStore, setting: str) -> Path:
    """Return the path of a model's file; where it is not here, a SettingsError names `setting`."""
    path = store.path(spec)
    if path is None:
        raise SettingsError(
            f"{setting}: {store.target(spec)} is not there; get it with "
            f"`upscaled models fetch {spec.name}`"
        )
    return path


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


def find_denoise(settings: Settings, spec: ModelSpec) -> float:
    """Return the share of a model's own weights in the mix; 1 for a model without a partner."""
    if spec.wdn is None:
        return 1.0
    return settings.denoise if spec.denoise is None else spec.denoise
