"""The bill of materials of a bundle: every package and model in it, as CycloneDX has it."""

import uuid
from collections.abc import Sequence

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from scripts.bundling.gathering import Needs
from scripts.bundling.parts import ModelFile, Wheel
from scripts.bundling.target import Target
from upscaled_models.files import hash_file

OWN_PACKAGE = "upscaled"


def write_sbom(
    wheels: Sequence[Wheel], needs: Needs, models: Sequence[ModelFile], target: Target
) -> str:
    """CycloneDX 1.6 in JSON: the same text for the same parts, so without a date."""
    parts = {wheel.name: _describe_wheel(wheel) for wheel in wheels}
    model_parts = [_describe_model(file) for file in models]
    hashes = [hash_.content for part in [*parts.values(), *model_parts] for hash_ in part.hashes]
    # The number is another for each set of parts.
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, " ".join(sorted(hashes))))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.metadata.component = parts[OWN_PACKAGE]
    facts = {name: getattr(target, name) for name in ("python", "machine", "accelerator")}
    bom.metadata.properties = _write_properties(facts)
    bom.components = [part for name, part in parts.items() if name != OWN_PACKAGE] + model_parts
    for name, part in parts.items():
        needed = [parts[other] for other, need in needs.items() if name in need.by]
        bom.register_dependency(part, needed)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _describe_wheel(wheel: Wheel) -> Component:
    is_own = wheel.name == OWN_PACKAGE
    place = f"wheels/{wheel.path.name}"
    part = _describe(wheel.name, wheel.sha256, wheel.licence, {"file": place})
    part.bom_ref.value = f"{wheel.name}=={wheel.version}"
    part.type = ComponentType.APPLICATION if is_own else ComponentType.LIBRARY
    part.version = wheel.version
    if not is_own:  # Built here, it is in no registry: a URL would name another project's.
        part.purl = PackageURL("pypi", name=wheel.name, version=wheel.version)
    part.scope = ComponentScope.EXCLUDED if wheel.name == "pip" else ComponentScope.REQUIRED
    return part


def _describe_model(file: ModelFile) -> Component:
    name, place = str(file.relative), f"models/{file.relative}"
    properties = {"model": file.spec.name, "file": place}
    part = _describe(name, hash_file(file.path), file.spec.licence, properties)
    part.bom_ref.value = place
    part.type = ComponentType.MACHINE_LEARNING_MODEL
    return part


def _describe(name: str, sha256: str, licence: str, properties: dict[str, str]) -> Component:
    return Component(
        name=name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        properties=_write_properties(properties),
    )


def _write_properties(values: dict[str, str]) -> list[Property]:
    return [Property(name=f"upscaled:{name}", value=value) for name, value in values.items()]
