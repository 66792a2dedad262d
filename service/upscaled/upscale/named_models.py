"""Find the models that the settings name, and their files, before anything heavy is loaded."""

from pathlib import Path

from upscaled.config import SCALES, Settings, SettingsError
from upscaled.upscale.model_choice import AUTO
from upscaled_models.registry import ModelSpec
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
        spec = store.find(name)
        check_scale(spec)
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
