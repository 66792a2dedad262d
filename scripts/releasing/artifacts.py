"""What is published of a version: wheel, bundles, images, notices and checksums."""

import json
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bundling.assembling import make_bundle, sign, write_manifest
from scripts.bundling.gathering import build_upscaled
from scripts.bundling.target import Target
from scripts.releasing.audit import OSV_URL, NotReachable, audit_locks
from scripts.releasing.cutting import (
    CHANGELOG,
    CannotRelease,
    read_section,
    read_version,
    require_clean,
    run_git,
)
from scripts.releasing.image import Accelerator, ImageSource, build_image
from scripts.releasing.notices import read_member, read_notices, write_notices


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make.

    images: the accelerators to build an image for, by `builder` with `image_options`.
    signing_key: the SSH key that signs the list of checksums; None: not signed.
    accepted: vulnerabilities that do not stop a release; audit_url: the database that is asked.
    """

    bundles: Sequence[Target]
    images: Sequence[Accelerator]
    builder: Sequence[str] = ()
    image_options: Sequence[str] = ()
    signing_key: Path | None = None
    accepted: Sequence[str] = ()
    audit_url: str = OSV_URL


def make_release(root: Path, plan: Plan, output: Path) -> Path:
    """Make everything in a new folder `output/upscaled-VERSION`, whole or not at all.

    Raises:
        CannotRelease: the clone is not clean, its version has no changelog section, the folder is
            there already, a locked package is vulnerable, or an image cannot be built.
    """
    require_clean(root)
    version = read_version(root)
    notes = read_section((root / CHANGELOG).read_text(), version)
    released = output / f"upscaled-{version}"
    if released.exists():
        raise CannotRelease(f"{released} is there already")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=output) as work:
        folder = Path(work, released.name)
        folder.mkdir()
        (folder / "CHANGES.md").write_text(notes)
        _audit(root, plan, folder)
        build_upscaled(folder)
        for target in plan.bundles:
            _add_bundle(target, folder)
        _add_images(root, str(version), plan, folder)
        manifest = write_manifest(folder)
        if plan.signing_key is not None:
            sign(manifest, plan.signing_key)
        folder.rename(released)
    return released


def _audit(root: Path, plan: Plan, folder: Path) -> None:
    """Write `audit.json`: the database's answer, or why there is none."""
    try:
        audit = audit_locks(root, plan.accepted, plan.audit_url)
    except NotReachable as error:
        say(f"NOT AUDITED: {plan.audit_url} did not answer ({error})")
        (folder / "audit.json").write_text(json.dumps({"not_audited": str(error)}) + "\n")
        return
    if audit.vulnerable:
        raise CannotRelease("vulnerable packages:\n  " + "\n  ".join(audit.vulnerable))
    say(f"{audit.packages} packages have no known vulnerability")
    (folder / "audit.json").write_text(json.dumps(audit.report) + "\n")


def _add_bundle(target: Target, folder: Path) -> None:
    """Make one bundle with the shipped models and the official weights, and what describes it."""
    with tempfile.TemporaryDirectory() as no_models:
        archive = make_bundle(target, ["realesrgan"], Path(no_models), None, folder)
    say(f"{archive.name}: {archive.stat().st_size / 1e6:,.0f} MB")
    sbom = folder / f"{archive.stem}.sbom.cdx.json"
    with tarfile.open(archive) as bundle:
        sbom.write_bytes(read_member(bundle, f"{archive.stem}/sbom.cdx.json"))
    notices = folder / f"{archive.stem}.notices.md"
    notices.write_text(write_notices(read_notices(archive)))


def _add_images(root: Path, version: str, plan: Plan, folder: Path) -> None:
    for accelerator in plan.images:
        source = ImageSource(
            root,
            version,
            run_git(root, "rev-parse", "HEAD"),
            int(run_git(root, "log", "-1", "--format=%ct")),
            accelerator,
        )
        say(f"{source.name}: {build_image(source, folder, plan.builder, plan.image_options)}")


def say(text: str) -> None:
    """Print a line on what was done; standard output is for the result's path alone."""
    print(text, file=sys.stderr, flush=True)
