"""Lay out a bundle's folder: what goes where, and the few facts its installer goes by."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.bundling.gathering import ROOT, Needs
from scripts.bundling.parts import ModelFile, Wheel
from scripts.bundling.sbom import OWN_PACKAGE, write_sbom
from scripts.bundling.target import Target

INSTALLER = Path(__file__).parent / "install"
NOTICES = ROOT / "models" / "upscaled_models" / "THIRD_PARTY_NOTICES.md"


def assemble(
    wheels: Sequence[Wheel],
    needs: Needs,
    models: Sequence[ModelFile],
    target: Target,
    place: Path,
) -> Path:
    """Make the bundle's folder in `place`, and return it. Wheels are moved, models are copied.

    It is named `upscaled-0.1.0-cp311-manylinux_2_28_x86_64-cpu`, say: the C library is the oldest
    that all the wheels run on, so what the target must have at least.
    """
    (version,) = [wheel.version for wheel in wheels if wheel.name == OWN_PACKAGE]
    needed = [glibc for wheel in wheels if (glibc := wheel.needed_glibc())]
    major, minor = max(needed, default=target.glibc)
    python = "cp" + target.python.replace(".", "")
    system = f"manylinux_{major}_{minor}_{target.machine}"
    folder = place / f"{OWN_PACKAGE}-{version}-{python}-{system}-{target.accelerator}"
    facts = {
        "name": folder.name,
        "version": version,
        "python": target.python,
        "machine": target.machine,
        "glibc": f"{major}.{minor}",
        "accelerator": target.accelerator,
    }
    (folder / "wheels").mkdir(parents=True)
    (folder / "facts").write_text("".join(f"{name}={fact}\n" for name, fact in facts.items()))
    sbom = write_sbom(wheels, needs, models, target)
    (folder / "sbom.cdx.json").write_text(sbom)
    # By hash: nothing that was slipped in is a candidate.
    wanted = [
        f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wheels if w.name != "pip"
    ]
    (folder / "requirements.txt").write_text("".join(wanted))
    for file in (ROOT / "LICENSE", NOTICES, INSTALLER):
        shutil.copy(file, folder)
    for model in models:
        placed = folder / "models" / model.relative
        placed.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.path, placed)
    for wheel in wheels:
        shutil.move(wheel.path, folder / "wheels")
    return folder
