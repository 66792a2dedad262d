"""Lay out a bundle's folder, list its files, sign the list, and pack it all into one file.

Both are checked by programs of the target's own, `sha256sum --check` and `ssh-keygen -Y verify`.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.bundling.gathering import ROOT, gather
from scripts.bundling.parts import OWN_PACKAGE, Part, find_model_files, read_wheel, write_sbom
from scripts.bundling.target import CannotBundle, Target, run
from upscaled.config import load_settings
from upscaled_models.files import hash_file, incoming_file
from upscaled_models.store import ModelStore

INSTALLER = Path(__file__).parent / "install"
NOTICES = ROOT / "models" / "upscaled_models" / "THIRD_PARTY_NOTICES.md"

NAMESPACE = "upscaled-bundle"
"""Purpose of a signature: one made for something else with the same key does not count."""

TIME_S = 1_580_601_600
"""The date of every file, unless SOURCE_DATE_EPOCH says another; hatchling takes the same."""


def make_bundle(
    target: Target, extras: list[str], models_dir: Path | None, key: Path | None, output: Path
) -> Path:
    """Make the archive in the folder `output`, replacing one of the same name.

    models_dir: the models to take along beside the shipped ones; None: the settings' own.
    """
    models = find_model_files(ModelStore(models_dir or load_settings().models_dir))
    output.mkdir(parents=True, exist_ok=True)
    # Beside the archive: the system's own folder of temporary files may be a small one in memory.
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output) as work:
        folder = Path(work, "bundle")
        (folder / "wheels").mkdir(parents=True)
        needs = gather(target, extras, folder / "wheels")
        wheels = [read_wheel(path) for path in sorted(folder.glob("wheels/*"))]
        (folder / "sbom.cdx.json").write_text(write_sbom([*wheels, *models], needs, target))
        for file in (ROOT / "LICENSE", NOTICES, INSTALLER):
            shutil.copy(file, folder)
        for model in models:
            (folder / model.place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.path, folder / model.place)
        folder = folder.rename(Path(work, write_facts(wheels, target, folder)))
        manifest = write_manifest(folder)
        if key is not None:
            sign(manifest, key)
        archive = output / f"{folder.name}.tar"
        pack(folder, archive)
    return archive


def write_facts(wheels: Sequence[Part], target: Target, folder: Path) -> str:
    """Write what the installer goes by into `folder`, and return the bundle's name.

    The C library in both is the oldest that all the wheels run on.
    """
    (version,) = [wheel.version for wheel in wheels if wheel.name == OWN_PACKAGE]
    needed = [glibc for wheel in wheels if (glibc := wheel.needed_glibc())]
    major, minor = max(needed, default=target.glibc)
    facts = {"version": version, **target._asdict(), "glibc": f"{major}.{minor}"}
    (folder / "facts").write_text("".join(f"{name}={fact}\n" for name, fact in facts.items()))
    # By hash: nothing that was slipped in is a candidate.
    wanted = [f"{each.name}=={each.version} --hash=sha256:{each.sha256}" for each in wheels]
    lines = [line for line in wanted if not line.startswith("pip==")]
    (folder / "requirements.txt").write_text("\n".join([*lines, ""]))
    python = "cp" + target.python.replace(".", "")
    system = f"manylinux_{major}_{minor}_{target.machine}"
    return f"{OWN_PACKAGE}-{version}-{python}-{system}-{target.accelerator}"


def write_manifest(folder: Path) -> Path:
    """List every file under `folder`, by path in alphabetical order."""
    manifest = folder / "MANIFEST.sha256"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    manifest.write_text("".join(lines))
    return manifest


def sign(manifest: Path, key: Path) -> Path:
    """Sign the list with an SSH key, or with a public one whose other half an agent holds.

    Raises:
        CannotBundle: ssh-keygen or the key is missing, or the passphrase was wrong.
    """
    signature = manifest.with_name(f"{manifest.name}.sig")
    signature.unlink(missing_ok=True)
    if shutil.which("ssh-keygen") is None:
        raise CannotBundle("ssh-keygen is not installed (Debian: openssh-client)")
    run(["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest)])
    return signature


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` to `archive`, a tar file, whole or not at all; independent of the user.

    It is not compressed: wheels are, and weights hardly can be.
    """
    time_s = os.environ.get("SOURCE_DATE_EPOCH", TIME_S)
    origin = ["--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{time_s}"]
    command = ["tar", "--create", "--format=gnu", "--sort=name", "--mode=u=rwX,go=rX", *origin]
    with incoming_file(archive, b"") as half_made:
        run([*command, f"--file={half_made}", f"--directory={folder.parent}", folder.name])
        half_made.replace(archive)
