"""Imports published networks without torchvision: Real-ESRGAN's, and the community's.

Its packages import torchvision for training and face code that a comparison of networks never
runs. For the time of the import alone, modules that hold only the names that are imported stand in.
"""

import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
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


@dataclass(frozen=True)
class PublishedCommunity:
    """The networks of the community as spandrel has them."""

    SPAN: Any
    RealPLKSR: Any


_SPANDREL_PACKAGES = (
    "spandrel",
    "spandrel.architectures",
    "spandrel.architectures.SPAN",
    "spandrel.architectures.PLKSR",
)


def import_community() -> PublishedCommunity:
    """SPAN and RealPLKSR of the package spandrel.

    Its packages import every network there is, and torchvision with them. For the time of the
    import, empty ones stand in that only know their folders.

    Raises:
        ImportError: spandrel is not installed.
    """
    spec = find_spec("spandrel")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("spandrel")
    (folder,) = spec.submodule_search_locations
    for name in _SPANDREL_PACKAGES:
        module = types.ModuleType(name)
        module.__path__ = [folder.removesuffix("spandrel") + name.replace(".", "/")]
        sys.modules[name] = module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PublishedCommunity(
                SPAN=import_module("spandrel.architectures.SPAN.__arch.span").SPAN,
                RealPLKSR=import_module("spandrel.architectures.PLKSR.__arch.RealPLKSR").RealPLKSR,
            )
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel"]:
            del sys.modules[name]


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
