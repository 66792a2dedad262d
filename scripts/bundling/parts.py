"""What goes into a bundle: wheels, and every model that was fetched, carried in or added here."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.utils import parse_wheel_filename

from scripts.bundling.target import CannotBundle, Glibc, parse_manylinux
from upscaled_models.files import FileState, hash_file
from upscaled_models.quantise.files import quantised_path, record_path
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel. licence: an SPDX expression, or its author's words; "" for none."""

    path: Path
    name: str
    version: str
    licence: str
    sha256: str

    def needed_glibc(self) -> Glibc | None:
        """Return the oldest C library it runs on; None for one that needs none, or does not say."""
        found = [parse_manylinux(tag.platform) for tag in parse_wheel_filename(self.path.name)[3]]
        return min((glibc for glibc, _ in filter(None, found)), default=None)


def read_wheel(path: Path) -> Wheel:
    """Read the metadata of the wheel at `path`.

    Raises:
        CannotBundle: it is damaged, or its metadata cannot be read.
    """
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            raw, _ = parse_email(archive.read(find_metadata(archive)))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CannotBundle(f"{path.name}: not a readable wheel ({error})") from error
    return Wheel(path, name, str(version), read_licence(raw), hash_file(path))


def find_metadata(wheel: zipfile.ZipFile) -> str:
    """Name the member with the wheel's own metadata: packages inside it may have some too."""
    ending = ".dist-info/METADATA"
    (name,) = [each for each in wheel.namelist() if each.count("/") == 1 and each.endswith(ending)]
    return name


def read_licence(metadata: RawMetadata) -> str:
    """Return its expression, else a short licence field, else the classifiers' names."""
    if expression := metadata.get("license_expression"):
        return expression
    field = metadata.get("license", "").strip()
    if field and "\n" not in field and field.upper() != "UNKNOWN":
        return field
    classifiers = metadata.get("classifiers", [])
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    return " AND ".join(names)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: where it lies, and where under the folder of models it belongs."""

    spec: ModelSpec
    path: Path
    relative: Path


def find_model_files(store: ModelStore) -> list[ModelFile]:
    """List the files of all models but the shipped ones, which are inside the package.

    Raises:
        CannotBundle: one is damaged, and would not be taken over there either.
    """
    files: list[ModelFile] = []
    for name, state in store.verify():
        if state.is_fault:
            raise CannotBundle(f"model {name}: {state} (`upscaled models verify` says more)")
        spec = store.find(name)
        if state is FileState.NOT_FETCHED or spec.source == "default":
            continue
        weights = store.target(spec)
        record = [weights.with_name(f"{spec.name}.json")] if spec.source == "user" else []
        in_8_bits = [
            path for path in (quantised_path(weights), record_path(weights)) if path.is_file()
        ]
        for path in (weights, *record, *in_8_bits):
            files.append(ModelFile(spec, path, path.relative_to(store.models_dir)))
    return files
