"""The settings of the service, each the environment variable `UPSCALED_<NAME>`."""

from upscaled.config.loading import ALIASES, describe_settings, find_near_names, load_settings
from upscaled.config.settings import (
    MIN_INPUT_SIDE_PX,
    SCALES,
    SLOTS_ON_CPU,
    SLOTS_ON_CUDA,
    Settings,
)
from upscaled.config.values import PREFIX, Network, SettingsError

__all__ = [
    "ALIASES",
    "MIN_INPUT_SIDE_PX",
    "PREFIX",
    "SCALES",
    "SLOTS_ON_CPU",
    "SLOTS_ON_CUDA",
    "Network",
    "Settings",
    "SettingsError",
    "describe_settings",
    "find_near_names",
    "load_settings",
]
