"""scripts/release as a maintainer runs it, in a clone of this repository."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.releasing.command import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    clone = tmp_path_factory.mktemp("release") / "clone"
    subprocess.run(["git", "clone", "--quiet", "--no-tags", str(ROOT), str(clone)], check=True)
    for name, value in {"user.name": "A", "user.email": "a@example.com"}.items():
        subprocess.run(["git", "-C", str(clone), "config", name, value], check=True)
    changelog = clone / "CHANGELOG.md"
    text = changelog.read_text().replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n### Added\n- More.\n", 1
    )
    changelog.write_text(text)
    subprocess.run(["git", "-C", str(clone), "commit", "-qam", "Add more"], check=True)
    return clone


def _release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what scripts/release runs, with this environment's packages and the clone's tree."""
    environment = os.environ | {"PYTHONPATH": str(clone)}
    command = [sys.executable, "-m", "scripts.releasing.command", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_version_is_cut_and_its_files_are_made(clone: Path, tmp_path: Path) -> None:
    cut = _release(clone, "cut", "9.8.7")
    assert cut.returncode == 0, cut.stderr
    made = _release(clone, "make", "--without-image", "--output", str(tmp_path))
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "upscaled-9.8.7"
    assert Path(made.stdout.strip()) == folder
    assert (folder / "CHANGES.md").read_text().startswith("### Added\n- More.\n")
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith("upscaled-9.8.7-")
    (bundle,) = folder.glob("upscaled-9.8.7-*.tar")
    sbom = json.loads((folder / f"{bundle.stem}.sbom.cdx.json").read_text())
    assert sbom["metadata"]["component"]["version"] == "9.8.7"
    notices = (folder / f"{bundle.stem}.notices.md").read_text()
    assert all(f"\n## {name} " in notices for name in ("fastapi", "numpy", "pillow", "torch"))
    audit = json.loads((folder / "audit.json").read_text())
    assert "dependencies" in audit or audit["not_audited"]
    lines = (folder / "MANIFEST.sha256").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(listed) == {path.name for path in folder.iterdir()} - {"MANIFEST.sha256"}
    assert listed[wheel.name] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    again = _release(clone, "make", "--without-image", "--output", str(tmp_path))
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_a_tree_with_changes_makes_nothing(clone: Path, tmp_path: Path) -> None:
    change = clone / "change"
    change.touch()
    made = _release(clone, "make", "--without-image", "--output", str(tmp_path / "out"))
    change.unlink()
    assert made.returncode == 1
    assert "scripts/release: commit or remove first:\n?? change" in made.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bundle", "reason"),
    [
        ("manylinux_2_28_x86_64,3.12", "must be as in manylinux_2_28_x86_64,3.12,cuda"),
        ("manylinux_2_28_x86_64,3.12,tpu", "must be as in"),
        ("manylinux_2_28_x86_64,3.9,cpu", "must be 3.11 or newer"),
        ("win_amd64,3.12,cpu", "must name a C library"),
    ],
)
def test_a_bundle_for_no_machine_is_refused_with_the_reason(
    bundle: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["make", "--bundle", bundle])
    assert reason in capsys.readouterr().err
