"""A model: a network with its weights file, and its tiling constraints. Loads no torch."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from upscaled_models.errors import ModelError
from upscaled_models.families import FAMILIES, Family, NetworkFamily, Shape, check_shape
from upscaled_models.families.base import whole
from upscaled_models.families.plain import plain_shape

Source = Literal["official", "default", "user"]

DEFAULT_DIR = Path(__file__).parent / "default"


@dataclass(frozen=True, slots=True)
class PackagedPair:
    """An ncnn pair in a Python package: each file's path inside it, and its SHA-256."""

    param: str
    param_sha256: str
    weights: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: a network's family and shape, and the file of its weights.

    Attributes:
        shape: the network's arguments by name.
        native_scale: the network's own factor.
        multiple_px: both input sides must be multiples of it.
        radius_px: an output pixel depends on input pixels at most this far from its own.
        halo_px: what a tile's window needs around it for the result to be the untiled one, exactly
            or, where the radius is too large to compute and discard, nearly
            (`families.rrdb.HALO_TRUNK_PX`, `families.realplksr.HALO_PX`). In input pixels.
        url: where to fetch the file; empty where it cannot be fetched.
        keeps_colour: the network leaves flat colour as it is, by its construction, so that its
            results need no colour correction: the shipped models do.
        wdn: the model to mix with where grain is to be kept (`weights.mix_states`).
        bits: bits of one weight in the file.
        packaged: the same model in 16 bits, whose file is made of `pair`, from a package instead of
            a release.
        same_as: the model whose file this one shares under another name; empty for its own file.
    """

    name: str
    family: Family
    shape: Shape = field(hash=False)
    native_scale: int
    multiple_px: int
    radius_px: int
    halo_px: int
    url: str
    size_bytes: int
    sha256: str
    licence: str
    file_name: str
    source: Source
    keeps_colour: bool = False
    wdn: "ModelSpec | None" = None
    bits: Literal[16, 32] = 32
    packaged: "ModelSpec | None" = None
    pair: PackagedPair | None = None
    same_as: str = ""

    @property
    def network(self) -> NetworkFamily:
        """What follows from the model's family."""
        return FAMILIES[self.family]

    @property
    def weights_key(self) -> str:
        """The name that stands for the file: two models with one owner run the same network."""
        return self.same_as or self.name

    def trunk_pixels(self, width_px: int, height_px: int) -> int:
        """Return the pixels at which the network's trunk runs for an input: the unit of cost."""
        fold = self.multiple_px
        return -(-width_px // fold) * -(-height_px // fold)


def describe_model(
    name: str,
    family: Family,
    shape: Shape,
    *,
    file_name: str,
    size_bytes: int,
    sha256: str,
    licence: str,
    source: Source,
    url: str = "",
    wdn: ModelSpec | None = None,
) -> ModelSpec:
    """Return the spec of a model, with all that follows from its shape worked out.

    Raises:
        ValueError: no network of that family has such a shape.
    """
    check_shape(family, shape)
    network = FAMILIES[family]
    return ModelSpec(
        name=name,
        family=family,
        shape=shape,
        native_scale=network.native_scale(shape),
        multiple_px=network.fold(shape),
        radius_px=network.radius_px(shape),
        halo_px=network.halo_px(shape),
        url=url,
        size_bytes=size_bytes,
        sha256=sha256,
        licence=licence,
        file_name=file_name,
        source=source,
        wdn=wdn,
    )


def makes_every_scale(native_scale: int) -> bool:
    """Return whether x2 and x4 can both be made with a network of that scale.

    A network of x2 runs twice for x4; a larger result is averaged down by a whole number.
    """
    return native_scale == 2 or native_scale % 4 == 0


@functools.cache
def read_default_models(default_dir: Path = DEFAULT_DIR) -> tuple[ModelSpec, ...]:
    """Read the models that ship inside the package from its `manifest.json`, once a process.

    An entry of nothing but `same_as` is a second name of another entry's file.

    Raises:
        ModelError: the manifest is missing or incomplete: the installation is damaged.
    """
    manifest = default_dir / "manifest.json"
    try:
        entries = dict(json.loads(manifest.read_bytes()).items())
        return tuple(_default_model(name, entries) for name in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{manifest}: not a readable manifest of models ({error!r})") from error


def _default_model(name: str, entries: Mapping[str, Mapping[str, int | str]]) -> ModelSpec:
    owner = str(entries[name].get("same_as", name))
    spec = _describe_default(owner, entries[owner])
    return spec if owner == name else replace(spec, name=name, same_as=owner)


def _describe_default(name: str, entry: Mapping[str, int | str]) -> ModelSpec:
    spec = describe_model(
        name,
        "plain",
        plain_shape(whole(entry, "scale"), whole(entry, "layers"), whole(entry, "features")),
        file_name=str(entry["file"]),
        size_bytes=whole(entry, "size_bytes"),
        sha256=str(entry["sha256"]),
        licence=str(entry["licence"]),
        source="default",
    )
    # 16 bits: `scripts.training.export` writes them.
    return replace(spec, bits=16, keeps_colour=True)
