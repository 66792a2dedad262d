"""The models on this machine: shipped in the package, fetched or copied here, or a user's own.

    models_dir/RealESRGAN_x4plus.pth      an official file, under its official name
    models_dir/own/NAME.safetensors       a user's own (ncnn pairs too), and beside it
    models_dir/own/NAME.json              its record: family, shape, size, SHA-256

Loads neither torch nor numpy, except in `ModelStore.add`.
"""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from upscaled_models.errors import ModelError, ModelRefused, UnknownModel
from upscaled_models.families import Family, Shape
from upscaled_models.files import (
    Content,
    FileState,
    check_file,
    hash_file,
    incoming_file,
    write_atomically,
)
from upscaled_models.registry import (
    DEFAULT_DIR,
    ModelFile,
    ModelSpec,
    find_official,
    makes_every_scale,
    official_models,
    read_default_models,
    split_strength,
)

MAX_NAME_CHARACTERS: Final = 64
NAME_PATTERN: Final = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARACTERS - 1}}}"
_SAFE_NAME: Final = re.compile(NAME_PATTERN)
_RESERVED_NAMES: Final = frozenset({"auto"})
_QUANTISED: Final = ".int8"
"""A model's record in 8 bits is `NAME.int8.json` (`upscaled_models.quantise.files`)."""


class ModelStore:
    """The models of one folder, and the shipped ones."""

    def __init__(self, models_dir: Path, default_dir: Path = DEFAULT_DIR) -> None:
        self.models_dir = models_dir
        self.default_dir = default_dir

    def names(self) -> tuple[str, ...]:
        """Return every model's name: shipped, official, then the user's own by the alphabet."""
        shipped = (
            spec.name for spec in (*read_default_models(self.default_dir), *official_models())
        )
        own = sorted(record.stem for record in self._own_dir.glob("*.json"))
        return (*shipped, *(name for name in own if not name.endswith(_QUANTISED)))

    def find(self, name: str) -> ModelSpec:
        """Return the model of that name, whether or not its file is here.

        It is the 16-bit variant of an official model where only that is here. The name may give a
        strength of denoising. No such model raises `UnknownModel`, whose text lists near names, a
        damaged record `ModelError`.
        """
        own_name, strength = split_strength(name)
        if strength is not None:
            return self._find_at_strength(name, own_name, strength)
        official = find_official(name)
        if official is not None:
            return self._present_variant(official)
        for spec in read_default_models(self.default_dir):
            if spec.name == name:
                return spec
        if _SAFE_NAME.fullmatch(name) and self._record_path(name).is_file():
            return self._read_own(name)
        near = difflib.get_close_matches(name, self.names(), n=3) or self.names()
        raise UnknownModel(f"there is no model {name!r}; there is: {', '.join(near)}")

    def _find_at_strength(self, name: str, own_name: str, strength: float) -> ModelSpec:
        spec = self.find(own_name)
        if spec.wdn is None:
            raise UnknownModel(f"there is no model {name!r}: {own_name} has no such strengths")
        return replace(spec, name=name, same_as=spec.weights_key, denoise=strength)

    def _present_variant(self, spec: ModelSpec) -> ModelSpec:
        """Return the 16-bit variant where its file is here and the release's is not."""
        packaged = spec.packaged
        if packaged is None or self.target(spec).is_file() or not self.target(packaged).is_file():
            return spec
        return packaged

    def target(self, spec: ModelSpec) -> Path:
        """Return where the file of `spec` belongs, present or not."""
        folders = {"default": self.default_dir, "official": self.models_dir, "user": self._own_dir}
        return folders[spec.source] / spec.file_name

    def path(self, spec: ModelSpec) -> Path | None:
        """Return the file of `spec`, or None if it is not here; loading checks its hash."""
        target = self.target(spec)
        return target if target.is_file() else None

    def missing(self, spec: ModelSpec) -> tuple[ModelSpec, ...]:
        """Return `spec` and the partner it is mixed with, as far as their files are missing."""
        is_mixed = spec.denoise is not None and spec.denoise < 1.0
        parts = (spec, spec.wdn if is_mixed else None)
        return tuple(each for each in parts if each is not None and self.path(each) is None)

    def add(self, name: str, *files: Path) -> ModelSpec:
        """Add an official model that was copied here by hand, or a user's own under a new name.

        A user's own model is recognised by its weights, all of which must fit.

        Args:
            files: one weights file, or the two of an ncnn pair, which become one safetensors file.

        Raises:
            ModelRefused: the name is unsafe or in use, or the files are not that model's.
            WeightsError: a file is damaged or of no known network.
        """
        from upscaled_models.ncnn.pair import PARAM_SUFFIX, sort_pair

        official = find_official(name)
        if official is None:
            self._refuse_name(name)
        shown_as = files[0]
        try:
            if len(files) > 1 or shown_as.suffix.lower() == PARAM_SUFFIX:
                return self._install_pair(name, official, *sort_pair(files))
            if not shown_as.is_file():
                raise ModelRefused(f"{shown_as}: there is no such file")
            if official:
                return self._install_official(official, shown_as, shown_as)
            return self._install_own(name, shown_as, shown_as)
        except OSError as error:
            raise ModelRefused(
                f"{shown_as}: cannot be copied into {self.models_dir}: {error}"
            ) from error

    def remove(self, name: str) -> list[Path]:
        """Delete the files of a fetched model or of a user's own, and return their paths.

        A damaged record is no obstacle, and a running service keeps what it has loaded. A shipped
        model, one without files and one whose file cannot be deleted raise `ModelRefused`.
        """
        removed: list[Path] = []
        try:
            for path in self.files_of(name):
                if path.is_file():
                    path.unlink()
                    removed.append(path)
        except OSError as error:
            raise ModelRefused(f"{path}: cannot be deleted: {error.strerror}") from error
        if not removed:
            raise ModelRefused(f"none of the files of {name} is here")
        return removed

    def verify(self) -> list[tuple[str, FileState]]:
        """Return the state of every model's file, by size and SHA-256, in the order of `names`."""
        return [(name, self._verify_one(name)) for name in self.names()]

    @property
    def _own_dir(self) -> Path:
        return self.models_dir / "own"

    def _record_path(self, name: str) -> Path:
        return self._own_dir / f"{name}.json"

    def files_of(self, name: str, *, in_use: bool = False) -> Iterator[Path]:
        """Yield the places of a model's files; a user's record first: without it, it is gone.

        in_use: of an official model only the release's files, or only those of the variant in 16
        bits, whichever is loaded. A shipped model raises `ModelRefused`.
        """
        official = find_official(name)
        if official is not None:
            used = self._present_variant(official)
            for spec in (official, official.packaged):
                if spec is not None and (spec is used or not in_use):
                    target = self.target(spec)
                    yield from (target, target.with_name(f"{target.name}.part"))
                    yield from self._quantised_files(target)
            return
        if any(spec.name == name for spec in read_default_models(self.default_dir)):
            raise ModelRefused(f"{name} is shipped with upscaled and cannot be removed")
        if name not in self.names():
            self.find(name)  # raises UnknownModel with near names
        yield self._record_path(name)
        for suffix in (".safetensors", ".pth"):
            yield self._own_dir / f"{name}{suffix}"
        yield from self._quantised_files(self._own_dir / f"{name}.pth")

    def _quantised_files(self, weights: Path) -> Iterator[Path]:
        for suffix in (".json", ".safetensors"):
            yield weights.with_name(f"{weights.stem}{_QUANTISED}{suffix}")

    def _verify_one(self, name: str) -> FileState:
        try:
            spec = self.find(name)
        except ModelError:
            return FileState.DAMAGED_RECORD
        path = self.path(spec)
        if path is None:
            return FileState.NOT_FETCHED if spec.source == "official" else FileState.MISSING
        try:
            return check_file(path, spec)
        except OSError:
            return FileState.UNREADABLE

    def _read_own(self, name: str) -> ModelSpec:
        path = self._record_path(name)
        try:
            return ModelFile.model_validate_json(path.read_bytes()).describe(name)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: not a readable record of a model") from error

    def _refuse_name(self, name: str) -> None:
        if not _SAFE_NAME.fullmatch(name):
            raise ModelRefused(
                f"{name!r} cannot be a model's name: at most 64 letters, digits, dots, hyphens "
                "and underscores, the first a letter or digit"
            )
        shipped = {
            spec.name for spec in (*read_default_models(self.default_dir), *official_models())
        }
        if name.lower() in shipped | _RESERVED_NAMES or name.lower().endswith(_QUANTISED):
            raise ModelRefused(f"{name!r} is in use: choose another name for a file of your own")

    def _install_pair(
        self, name: str, official: ModelSpec | None, param: Path, weights: Path
    ) -> ModelSpec:
        from upscaled_models.ncnn.pair import read_pair_files, to_safetensors

        family, shape, tensors = read_pair_files(param, weights)
        content = to_safetensors(tensors)
        if official is None:
            return self._install_own(name, param, content, network=(family, shape))
        if official.packaged is None:
            raise ModelRefused(f"{param}: {name} is not known as an ncnn pair")
        return self._install_official(official.packaged, param, content)

    def _install_official(self, spec: ModelSpec, shown_as: Path, content: Content) -> ModelSpec:
        target = self.target(spec)
        with incoming_file(target, content) as incoming:
            state = check_file(incoming, spec)
            if state is not FileState.OK:
                fault = f"must have {spec.size_bytes} bytes and SHA-256 {spec.sha256}"
                if spec.bits == 16:
                    fault = "its weights differ from the known ones"
                raise ModelRefused(f"{shown_as}: not the file of {spec.name} ({state}): {fault}")
            os.replace(incoming, target)
        return spec

    def _install_own(
        self,
        name: str,
        shown_as: Path,
        content: Content,
        *,
        network: tuple[Family, Shape] | None = None,
    ) -> ModelSpec:
        """Install a user's own file; a pair's `network` is known already."""
        from upscaled_models.weights import recognise_file

        is_safetensors = network is not None or shown_as.suffix == ".safetensors"
        target = self._own_dir / f"{name}{'.safetensors' if is_safetensors else '.pth'}"
        with incoming_file(target, content) as incoming:
            family, shape = recognise_file(incoming, shown_as=shown_as, network=network)
            record = ModelFile(
                file=target.name,
                sha256=hash_file(incoming),
                size_bytes=incoming.stat().st_size,
                family=family,
                shape=dict(shape),
            )
            spec = record.describe(name)
            check_scale(spec)
            self._refuse_other_file(spec)
            os.replace(incoming, target)
        write_atomically(self._record_path(name), record.model_dump_json(indent=2).encode())
        return spec

    def _refuse_other_file(self, spec: ModelSpec) -> None:
        """Refuse another file under a name in use; the same file may repair a damaged copy."""
        path = self._record_path(spec.name)
        if path.is_file() and self._read_own(spec.name).sha256 != spec.sha256:
            raise ModelRefused(
                f"{spec.name!r} already names another file: choose another name, or delete {path}"
            )


def check_scale(spec: ModelSpec) -> None:
    """Refuse a model with which x2 and x4 cannot both be made (`registry.makes_every_scale`)."""
    if not makes_every_scale(spec.native_scale):
        raise ModelRefused(
            f"{spec.name}: a model of x{spec.native_scale}; x2 and x4 cannot both be made with it"
        )
