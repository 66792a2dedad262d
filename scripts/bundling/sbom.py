"""The bill of materials of a bundle: every package and model in it, as CycloneDX has it."""

import uuid
from collections.abc import Iterable, Mapping, Sequence

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import NormalizedName, canonicalize_name

from scripts.bundling.models import ModelFile
from scripts.bundling.target import Target
from scripts.bundling.wheels import Wheel
from upscaled_models.files import hash_file

ROOT_NAME = "upscaled"


def write_sbom(
    wheels: Sequence[Wheel], extras: Sequence[str], models: Sequence[ModelFile], target: Target
) -> str:
    """CycloneDX 1.6 in JSON: the same text for the same parts, so without a date."""
    components = {wheel.name: _describe_wheel(wheel) for wheel in wheels}
    bom = Bom(serial_number=_identify(wheels, models))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    root = components[canonicalize_name(ROOT_NAME)]
    bom.metadata.component = root
    bom.metadata.properties = [
        Property(name="upscaled:python", value=target.python),
        Property(name="upscaled:machine", value=target.machine),
        Property(name="upscaled:accelerator", value=target.accelerator),
    ]
    others = [part for part in components.values() if part is not root]
    bom.components = [*others, *map(_describe_model, models)]
    for wheel in wheels:
        wanted = extras if wheel.name == ROOT_NAME else ()
        bom.register_dependency(
            components[wheel.name], _parts_needed(wheel, wanted, components, target)
        )
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _parts_needed(
    wheel: Wheel,
    extras: Iterable[str],
    components: Mapping[NormalizedName, Component],
    target: Target,
) -> list[Component]:
    names = {canonicalize_name(need.name) for need in wheel.needs(target, extras)}
    return [components[name] for name in sorted(names) if name in components]


def _describe_wheel(wheel: Wheel) -> Component:
    version = str(wheel.version)
    is_root = wheel.name == ROOT_NAME
    return Component(
        type=ComponentType.APPLICATION if is_root else ComponentType.LIBRARY,
        name=wheel.name,
        version=version,
        bom_ref=f"{wheel.name}=={version}",
        # What is built here is in no registry: a package URL would name another project's.
        purl=None if is_root else PackageURL("pypi", name=wheel.name, version=version),
        scope=ComponentScope.EXCLUDED if wheel.name == "pip" else ComponentScope.REQUIRED,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sha256)],
        licenses=_describe_licence(wheel.licence),
        properties=[Property(name="upscaled:file", value=f"wheels/{wheel.path.name}")],
    )


def _describe_model(file: ModelFile) -> Component:
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=str(file.relative),
        bom_ref=f"models/{file.relative}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=hash_file(file.path))],
        licenses=_describe_licence(file.spec.licence),
        properties=[
            Property(name="upscaled:model", value=file.spec.name),
            Property(name="upscaled:file", value=f"models/{file.relative}"),
        ],
    )


def _describe_licence(text: str) -> list[License]:
    return [LicenseFactory().make_from_string(text)] if text else []


def _identify(wheels: Sequence[Wheel], models: Sequence[ModelFile]) -> uuid.UUID:
    """Return a serial number that is another for each set of parts."""
    parts = [wheel.sha256 for wheel in wheels] + [hash_file(file.path) for file in models]
    return uuid.uuid5(uuid.NAMESPACE_OID, " ".join(sorted(parts)))
