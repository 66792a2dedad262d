"""What goes into a bundle, wheels and models, and the bill of materials that lists it all."""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import parse_wheel_filename

from scripts.bundling.gathering import Needs
from scripts.bundling.target import CannotBundle, Glibc, Target, parse_manylinux
from upscaled_models.files import hash_file
from upscaled_models.store import ModelStore

OWN_PACKAGE = "upscaled"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle: a wheel, or a file of a `model`, which has no version.

    name: of the package, or of the file among the models.
    licence: an SPDX expression, or its author's words; "" for none.
    """

    path: Path
    name: str
    version: str
    licence: str
    sha256: str
    model: str = ""

    @property
    def place(self) -> str:
        """Return its path in the bundle."""
        return f"models/{self.name}" if self.model else f"wheels/{self.path.name}"

    def needed_glibc(self) -> Glibc | None:
        """Return the oldest C library that a wheel runs on; None where it names none."""
        tags = parse_wheel_filename(self.path.name)[3]
        found = filter(None, (parse_manylinux(tag.platform) for tag in tags))
        return min((glibc for glibc, _ in found), default=None)


def read_wheel(path: Path) -> Part:
    """Read the metadata of a wheel; one that is damaged raises `CannotBundle`."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        (wheel,) = distributions(path=[str(path)])  # those of packages inside it do not count
    except ValueError as error:
        raise CannotBundle(f"{path.name}: not a readable wheel ({error})") from error
    return Part(path, name, str(version), read_licence(wheel), hash_file(path))


def read_licence(package: Distribution) -> str:
    """Return its expression, else a short licence field, else the classifiers' names."""
    fields = [package.metadata.get_all(name, []) for name in ("License-Expression", "License")]
    for licence in map(str.strip, itertools.chain(*fields)):
        if licence and "\n" not in licence and licence.upper() != "UNKNOWN":
            return licence
    classifiers = package.metadata.get_all("Classifier", [])
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    return " AND ".join(names)


def find_model_files(store: ModelStore) -> list[Part]:
    """List the files that all models but the shipped ones load; `CannotBundle`: one is damaged."""
    parts = []
    for name, state in store.verify():
        if state.is_fault:
            raise CannotBundle(f"model {name}: {state} (`upscaled models verify` says more)")
        spec = store.find(name)
        for path in store.files_of(name, in_use=True) if spec.source != "default" else ():
            if path.is_file() and path.suffix != ".part":
                file = path.relative_to(store.models_dir).as_posix()
                parts.append(Part(path, file, "", spec.licence, hash_file(path), name))
    return parts


def write_sbom(parts: Sequence[Part], needs: Needs, target: Target) -> str:
    """Return the bill of materials (CycloneDX 1.6, JSON): the same for the same parts, undated."""
    described = {part: _describe(part) for part in parts}
    wheels = {part.name: described[part] for part in parts if not part.model}
    number = uuid.uuid5(uuid.NAMESPACE_OID, " ".join(sorted(part.sha256 for part in parts)))
    bom = Bom(serial_number=number)
    bom.metadata.timestamp = None  # type: ignore[assignment]  # it may be left out
    bom.metadata.component = wheels[OWN_PACKAGE]
    facts = {name: getattr(target, name) for name in ("python", "machine", "accelerator")}
    bom.metadata.properties = _write_properties(facts)
    bom.components = set(described.values()) - {wheels[OWN_PACKAGE]}
    for name, wheel in wheels.items():
        needed = [wheels[other] for other in wheels if name in needs[other].by]
        bom.register_dependency(wheel, needed)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _describe(part: Part) -> Component:
    kind = ComponentType.MACHINE_LEARNING_MODEL if part.model else ComponentType.LIBRARY
    purl = None if part.model else PackageURL("pypi", name=part.name, version=part.version)
    if part.name == OWN_PACKAGE:  # Built here, it is in no registry: it would name another's.
        kind, purl = ComponentType.APPLICATION, None
    scope = ComponentScope.EXCLUDED if part.name == "pip" else ComponentScope.REQUIRED
    return Component(
        type=kind,
        bom_ref=part.place if part.model else f"{part.name}=={part.version}",
        name=part.name,
        version=part.version or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)],
        licenses=[_describe_licence(part.licence)] if part.licence else [],
        purl=purl,
        scope=None if part.model else scope,
        properties=_write_properties({"model": part.model, "file": part.place}),
    )


def _describe_licence(licence: str) -> License:
    try:  # not by cyclonedx's factory, which knows neither `LicenseRef-` nor `Apache-2.0+`
        spdx = canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return DisjunctiveLicense(name=licence)
    return DisjunctiveLicense(id=spdx) if is_supported_id(spdx) else LicenseExpression(spdx)


def _write_properties(values: Mapping[str, str]) -> list[Property]:
    return [Property(name=f"upscaled:{key}", value=value) for key, value in values.items() if value]
