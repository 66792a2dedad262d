"""Imports the published Real-ESRGAN without torchvision.

Its packages import torchvision for training and face code that a comparison of networks never
runs. For the time of the import alone, modules that hold only the names asked for stand in.
"""

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_NAMES_BY_MODULE: dict[str, tuple[str, ...]] = {
    "torchvision": (),
    "torchvision.utils": ("make_grid",),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("normalize",),
    "torchvision.transforms.functional_tensor": ("rgb_to_grayscale",),
    "torchvision.models": (),
    "torchvision.models.vgg": (),
}


@dataclass(frozen=True)
class PublishedRealEsrgan:
    """The three classes that tests compare with."""

    RRDBNet: Any
    SRVGGNetCompact: Any
    RealESRGANer: Any


def import_published() -> PublishedRealEsrgan:
    """The published classes; takes about 3 s.

    Raises:
        ImportError: the packages of requirements.lock beside this file are not installed.
    """
    with warnings.catch_warnings(), torchvision_stood_in():
        warnings.simplefilter("ignore")
        return PublishedRealEsrgan(
            RRDBNet=import_module("basicsr.archs.rrdbnet_arch").RRDBNet,
            SRVGGNetCompact=import_module("realesrgan.archs.srvgg_arch").SRVGGNetCompact,
            RealESRGANer=import_module("realesrgan").RealESRGANer,
        )


@contextmanager
def torchvision_stood_in() -> Iterator[None]:
    if "torchvision" in sys.modules:
        raise ImportError("torchvision is loaded: stand-ins must not hide a real one")
    for name, members in _NAMES_BY_MODULE.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, _never_called)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name in _NAMES_BY_MODULE:
            del sys.modules[name]


def _never_called(*_args: object, **_options: object) -> object:
    raise NotImplementedError("a comparison of networks needs nothing of torchvision")
