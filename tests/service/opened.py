"""Engines of the models that settings name, opened without a core around them."""

from upscaled.config import Settings
from upscaled.upscale.engines import open_model
from upscaled.upscale.named_models import choose_model
from upscaled_models.backends.base import Engine
from upscaled_models.store import ModelStore


def open_engine(settings: Settings, scale: int) -> Engine:
    """The engine of the model that the settings name for a scale, or of the shipped one."""
    spec = choose_model(settings, scale, ModelStore(settings.models_dir))
    return open_model(settings, spec.name)
