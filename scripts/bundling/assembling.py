"""Lay out a bundle's folder: what goes where, and the few facts its installer goes by."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bundling.gathering import ROOT
from scripts.bundling.models import ModelFile
from scripts.bundling.sbom import write_sbom
from scripts.bundling.target import Glibc, Target
from scripts.bundling.wheels import Wheel

INSTALLER = Path(__file__).parent / "install"


@dataclass(frozen=True, slots=True)
class Parts:
    """All that goes into one bundle."""

    wheels: Sequence[Wheel]
    extras: Sequence[str]
    models: Sequence[ModelFile]
    target: Target

    @property
    def upscaled(self) -> Wheel:
        return next(wheel for wheel in self.wheels if wheel.name == "upscaled")

    @property
    def glibc(self) -> Glibc:
        """The oldest C library that all the wheels run on: what the target must have at least."""
        needed = [glibc for wheel in self.wheels if (glibc := wheel.needed_glibc())]
        return max(needed, default=self.target.glibc)


def name_bundle(parts: Parts) -> str:
    """Name a bundle, for example `upscaled-0.1.0-cp311-manylinux_2_28_x86_64-cpu`."""
    target = parts.target
    needed = f"manylinux_{parts.glibc[0]}_{parts.glibc[1]}_{target.machine}"
    return f"upscaled-{parts.upscaled.version}-{target.python_tag}-{needed}-{target.accelerator}"


def assemble(parts: Parts, folder: Path) -> None:
    """Fill `folder`, which must not be there yet. The wheels are moved, models are copied."""
    (folder / "wheels").mkdir(parents=True)
    sbom = write_sbom(parts.wheels, parts.extras, parts.models, parts.target)
    (folder / "sbom.cdx.json").write_text(sbom)
    (folder / "requirements.txt").write_text(_write_requirements(parts.wheels))
    (folder / "facts").write_text(_write_facts(parts))
    for notice in ("LICENSE", "models/upscaled_models/THIRD_PARTY_NOTICES.md"):
        shutil.copy(ROOT / notice, folder)
    shutil.copy(INSTALLER, folder)
    (folder / "install").chmod(0o755)
    for file in parts.models:
        placed = folder / "models" / file.relative
        placed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, placed)
    for wheel in parts.wheels:
        shutil.move(wheel.path, folder / "wheels")


def _write_requirements(wheels: Sequence[Wheel]) -> str:
    """List what pip is to install, by hash: nothing that was slipped in is a candidate."""
    return "".join(
        f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n"
        for wheel in wheels
        if wheel.name != "pip"
    )


def _write_facts(parts: Parts) -> str:
    facts = {
        "name": name_bundle(parts),
        "version": parts.upscaled.version,
        "python": parts.target.python,
        "machine": parts.target.machine,
        "glibc": ".".join(map(str, parts.glibc)),
        "accelerator": parts.target.accelerator,
    }
    return "".join(f"{name}={value}\n" for name, value in facts.items())
