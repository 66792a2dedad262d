"""upscaled: self-hosted image upscaling behind the hosted `POST /v1/upscale` contract.

    from upscaled import Upscaler

is the Python API (`docs/python.md`). Its names are loaded when they are first used: `import
upscaled` and the front end load neither torch nor numpy. Their types stand in `__init__.pyi`.
"""

from importlib import import_module
from typing import Final

__version__ = "0.2.0"

_HOMES: Final = {
    "Cancellation": "upscaled.upscale.concurrency",
    "Cancelled": "upscaled.upscale.concurrency",
    "EngineOutOfMemory": "upscaled_models.errors",
    "InternalError": "upscaled.errors",
    "InvalidParameter": "upscaled.errors",
    "MalformedImage": "upscaled.errors",
    "ModelError": "upscaled_models.errors",
    "OutputOptions": "upscaled.upscale.call_options",
    "ResolutionTooHigh": "upscaled.errors",
    "Result": "upscaled.upscale.result",
    "ServiceError": "upscaled.errors",
    "Settings": "upscaled.config",
    "SettingsError": "upscaled.config",
    "Timings": "upscaled.upscale.result",
    "UnsupportedImageFormat": "upscaled.errors",
    "Upscaler": "upscaled.upscale.upscaler",
    "load_settings": "upscaled.config",
}
"""The public names, and the modules that they are loaded from when they are first used."""

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604  (keys of a constant)


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
