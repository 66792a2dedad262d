"""Metadata of wheels, and the requirements that follow from them on a target."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from scripts.bundling.target import Glibc, Target, parse_manylinux
from upscaled_models.files import hash_file


class UnfitWheel(ValueError):
    """A wheel that cannot be used; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel on disk. licence: an SPDX expression, or its author's words; "" for none."""

    path: Path
    name: NormalizedName
    version: Version
    requires: tuple[Requirement, ...]
    licence: str
    sha256: str

    def needed_glibc(self) -> Glibc | None:
        """Return the oldest C library it runs on; None for one that needs none, or does not say."""
        tags = parse_wheel_filename(self.path.name)[3]
        found = [parse_manylinux(tag.platform) for tag in tags]
        return min((glibc for glibc, _ in filter(None, found)), default=None)

    def needs(self, target: Target, extras: Iterable[str] = ()) -> Iterator[Requirement]:
        """Yield its requirements on the target, with those of its own extras."""
        environment = target.marker_environment()
        for requirement in self.requires:
            marker = requirement.marker
            if marker is None or any(
                marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
            ):
                yield requirement

    def is_cuda_build(self, target: Target) -> bool:
        """Return whether it is a torch that needs CUDA's packages."""
        return any(need.name.startswith(("nvidia-", "cuda-")) for need in self.needs(target))


Wheels = Mapping[NormalizedName, Wheel]


def read_wheel(path: Path) -> Wheel:
    """Read the metadata of the wheel at `path`.

    Raises:
        UnfitWheel: it is damaged, or its metadata cannot be read.
    """
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            (member,) = [
                entry
                for entry in archive.namelist()
                if entry.count("/") == 1 and entry.endswith(".dist-info/METADATA")
            ]
            metadata = archive.read(member)
        raw, _ = parse_email(metadata)
        requires = tuple(Requirement(text) for text in raw.get("requires_dist", []))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UnfitWheel(f"{path.name}: not a readable wheel ({error})") from error
    return Wheel(path, name, version, requires, read_licence(raw), hash_file(path))


def needs_of_all(
    root: Wheel, extras: Iterable[str], wheels: Wheels, target: Target
) -> list[Requirement]:
    """List every requirement met on the way through `wheels` from `root`.

    Raises:
        UnfitWheel: a wheel is there in a version that another one does not take.
    """
    found: list[Requirement] = []
    waiting = [(root, frozenset(extras))]
    seen = set()
    while waiting:
        wheel, wanted = waiting.pop()
        if (wheel.name, wanted) in seen:
            continue
        seen.add((wheel.name, wanted))
        for need in wheel.needs(target, wanted):
            found.append(need)
            needed = wheels.get(canonicalize_name(need.name))
            if needed is None:
                continue
            if not need.specifier.contains(needed.version, prereleases=True):
                raise UnfitWheel(f"{wheel.name} needs {need}, but there is {needed.path.name}")
            waiting.append((needed, frozenset(need.extras)))
    return found


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
