"""What goes into a bundle, wheels and models, and the bill of materials that lists it all."""

import itertools
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

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
        found = [parse_manylinux(tag.platform) for tag in tags]
        return min((glibc for glibc, _ in filter(None, found)), default=None)


def read_wheel(path: Path) -> Part:
    """Read the metadata of the wheel at `path`.

    Raises:
        CannotBundle: it is damaged, or its metadata cannot be read.
    """
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
    """List the files of all models but the shipped ones, which are inside the package.

    Raises:
        CannotBundle: one is damaged, and would not be taken over there either.
    """
    parts = []
    for name, state in store.verify():
        if state.is_fault:
            raise CannotBundle(f"model {name}: {state} (`upscaled models verify` says more)")
        spec = store.find(name)
        places = [] if spec.source == "default" else store.files_of(name)
        for path in places:
            if path.is_file() and path.suffix != ".part":
                file = path.relative_to(store.models_dir).as_posix()
                parts.append(Part(path, file, "", spec.licence, hash_file(path), name))
    return parts


def write_sbom(parts: Sequence[Part], needs: Needs, target: Target) -> str:
    """Return the bill of materials (CycloneDX 1.6, JSON): the same for the same parts, undated."""
    (own,) = [part for part in parts if part.name == OWN_PACKAGE]
    refs = {part.name: _name(part) for part in parts if not part.model}
    # The number is another for each set of parts.
    number = uuid.uuid5(uuid.NAMESPACE_OID, " ".join(sorted(part.sha256 for part in parts)))
    facts = {name: getattr(target, name) for name in ("python", "machine", "accelerator")}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": number.urn,
        "version": 1,
        "metadata": {"component": _describe(own), "properties": _write_properties(facts)},
        "components": [_describe(part) for part in parts if part is not own],
        "dependencies": [
            {
                "ref": ref,
                "dependsOn": [refs[other] for other in sorted(refs) if name in needs[other].by],
            }
            for name, ref in sorted(refs.items())
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _name(part: Part) -> str:
    return part.place if part.model else f"{part.name}=={part.version}"


def _describe(part: Part) -> dict[str, Any]:
    described: dict[str, Any] = {
        "bom-ref": _name(part),
        "type": "machine-learning-model" if part.model else "library",
        "name": part.name,
        "hashes": [{"alg": "SHA-256", "content": part.sha256}],
        "licenses": _describe_licence(part.licence),
        "properties": _write_properties({"model": part.model, "file": part.place}),
    }
    if not part.model:
        described["version"] = part.version
        described["scope"] = "excluded" if part.name == "pip" else "required"
        described["purl"] = PackageURL("pypi", name=part.name, version=part.version).to_string()
    if part.name == OWN_PACKAGE:
        described["type"] = "application"
        del described["purl"]  # Built here, it is in no registry: it would name another project's.
    return described


def _describe_licence(licence: str) -> list[dict[str, Any]]:
    try:
        expression = canonicalize_license_expression(licence)
    except InvalidLicenseExpression:
        return [{"license": {"name": licence}}] if licence else []
    is_id = re.fullmatch(r"(?!LicenseRef-)[\w.-]+", expression)  # a licence that SPDX itself lists
    return [{"license": {"id": expression}} if is_id else {"expression": expression}]


def _write_properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": f"upscaled:{name}", "value": value} for name, value in values.items() if value]
