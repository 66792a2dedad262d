"""Refusals of the installer and their texts. test_bundling_air_gap.py shows that it installs."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bundling.assembling import INSTALLER, sign, write_manifest
from tests.scripts.bundling.making import make_signing_key

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the installer is for Linux"),
    pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen to sign with"),
]
HERE = {
    "name": "a-bundle",
    "version": "0.0.0",
    "python": ".".join(platform.python_version_tuple()[:2]),
    "machine": platform.machine(),
    "glibc": "2.5",
    "accelerator": "cpu",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Make a bundle for this machine of which only the packages are missing."""
    folder = tmp_path / "a bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "models" / "own").mkdir(parents=True)
    shutil.copy(INSTALLER, folder)
    (folder / "requirements.txt").write_text("")
    (folder / "wheels" / "part-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (folder / "models" / "own" / "mine.json").write_text("{}")
    _write_facts(folder)
    return folder


def _write_facts(bundle: Path, **other: str) -> None:
    facts = {**HERE, **other}
    (bundle / "facts").write_text("".join(f"{name}={value}\n" for name, value in facts.items()))
    write_manifest(bundle)


def _install(bundle: Path, *arguments: str | Path, path: str = "") -> str:
    """Run an installer that refuses, and return what it says; nothing was installed."""
    prefix = bundle.parent / "prefix"
    command = [str(bundle / "install"), str(prefix), "--data-dir", str(bundle.parent / "data")]
    finished = subprocess.run(
        [*command, *map(str, arguments)],
        env={"PATH": path or os.environ["PATH"], "HOME": str(bundle.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1, finished
    assert not (prefix / "bin" / "upscaled").exists()
    return finished.stderr


def test_help_lists_what_this_bundle_requires(bundle: Path) -> None:
    finished = subprocess.run([str(bundle / "install"), "--help"], capture_output=True, text=True)
    assert finished.returncode == 0
    assert f"Python {HERE['python']} on Linux, {HERE['machine']}, glibc 2.5" in finished.stdout
    known = set(re.findall(r"^ +(--[a-z-]+)\) ", INSTALLER.read_text(), re.MULTILINE))
    assert {"--data-dir", "--signer", "--python"} <= known
    assert [option for option in known if option not in finished.stdout] == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("wheels/part-1.0-py3-none-any.whl", "damaged"),
        ("models/own/mine.json", "missing"),
        ("install", "damaged"),
        ("facts", "damaged"),
    ],
)
def test_a_file_that_is_not_as_listed_is_refused_by_name(
    bundle: Path, name: str, fault: str
) -> None:
    if fault == "missing":
        (bundle / name).unlink()
    else:
        (bundle / name).write_bytes((bundle / name).read_bytes() + b"\n")
    assert _install(bundle).splitlines() == [
        "install: this bundle is damaged; copy it here again:",
        f"{name}: {fault}",
    ]


def test_a_file_that_is_not_listed_is_refused_by_name(bundle: Path) -> None:
    (bundle / "wheels" / "slipped-in-1.0-py3-none-any.whl").write_bytes(b"")
    said = _install(bundle)
    assert said.splitlines() == [
        "install: not on this bundle's list of files:",
        "wheels/slipped-in-1.0-py3-none-any.whl",
    ]


@pytest.mark.parametrize("text", ["", "not a list\n"])
def test_a_damaged_list_is_refused(bundle: Path, text: str) -> None:
    (bundle / "MANIFEST.sha256").write_text(text)
    assert "MANIFEST.sha256: damaged" in _install(bundle)


def test_a_list_with_a_damaged_line_is_refused(bundle: Path) -> None:
    manifest = bundle / "MANIFEST.sha256"
    manifest.write_text(manifest.read_text().replace("  models", " models"))
    assert "MANIFEST.sha256: damaged" in _install(bundle)


def test_without_its_list_it_is_no_bundle(bundle: Path) -> None:
    (bundle / "MANIFEST.sha256").unlink()
    assert "MANIFEST.sha256: missing" in _install(bundle)


def test_a_signature_is_verified_for_the_given_signer(bundle: Path, tmp_path: Path) -> None:
    """Past the signature, it goes on to what it cannot do here: the packages are missing."""
    key = make_signing_key(tmp_path / "key")
    sign(bundle / "MANIFEST.sha256", key)
    said = _install(bundle, "--signer", key.with_suffix(".pub"))
    assert "not signed" not in said
    assert "pip could not install" in said


def test_without_a_signer_it_reports_that_no_signature_was_checked(
    bundle: Path, tmp_path: Path
) -> None:
    sign(bundle / "MANIFEST.sha256", make_signing_key(tmp_path / "key"))
    assert "This bundle is signed: --signer FILE would check by whom." in _install(bundle)


def test_another_s_signature_is_refused(bundle: Path, tmp_path: Path) -> None:
    sign(bundle / "MANIFEST.sha256", make_signing_key(tmp_path / "key"))
    other = make_signing_key(tmp_path / "other").with_suffix(".pub")
    assert f"is not signed by the key in {other}" in _install(bundle, "--signer", other)


def test_a_list_that_was_changed_after_signing_is_refused(bundle: Path, tmp_path: Path) -> None:
    key = make_signing_key(tmp_path / "key")
    sign(bundle / "MANIFEST.sha256", key)
    (bundle / "wheels" / "part-1.0-py3-none-any.whl").write_bytes(b"another")
    (bundle / "MANIFEST.sha256").rename(tmp_path / "old")
    write_manifest(bundle)
    said = _install(bundle, "--signer", key.with_suffix(".pub"))
    assert "MANIFEST.sha256 is not signed by" in said


def test_a_bundle_without_a_signature_is_refused_where_one_is_due(
    bundle: Path, tmp_path: Path
) -> None:
    signer = make_signing_key(tmp_path / "key").with_suffix(".pub")
    assert "this bundle is not signed" in _install(bundle, "--signer", signer)
    assert "--signer nowhere.pub: there is no such file" in _install(
        bundle, "--signer", "nowhere.pub"
    ).replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"machine": "s390x"}, f"this bundle is for s390x; this machine is {platform.machine()}"),
        ({"glibc": "9.99"}, "this bundle needs glibc 9.99 or newer; this machine has "),
        ({"python": "3.99"}, f"this bundle is for Python 3.99; python3 is {HERE['python']}"),
    ],
)
def test_another_machine_is_refused(bundle: Path, facts: dict[str, str], said: str) -> None:
    _write_facts(bundle, **facts)
    python = bundle.parent / "bin"
    python.mkdir()
    (python / "python3").symlink_to(sys.executable)
    assert said in _install(bundle, path=f"{python}:/usr/bin:/bin")


def test_a_python_that_does_not_fit_is_refused_by_its_version(bundle: Path) -> None:
    _write_facts(bundle, python="3.99")
    said = _install(bundle, "--python", sys.executable)
    assert f"Python 3.99; {sys.executable} is {HERE['python']}." in said
    assert "found none" in _install(bundle, "--python", "/nowhere/python3")


def test_a_folder_with_other_files_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix" / "thesis.tex").write_text("years of work")
    assert "holds other files: name a folder of upscaled's own" in _install(bundle)
    assert (tmp_path / "prefix" / "thesis.tex").read_text() == "years of work"


def test_a_model_of_the_same_name_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    mine = tmp_path / "data" / "models" / "own" / "mine.json"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"another": 1}')
    assert f"{mine} is not the file of this bundle: move it away first" in _install(bundle)
    assert mine.read_text() == '{"another": 1}'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["another"], "only one PREFIX"),
        (["--wrong"], "there is no --wrong"),
        (["--signer"], "--signer needs a value"),
    ],
)
def test_a_wrong_command_line_is_reported(bundle: Path, arguments: list[str], said: str) -> None:
    assert said in _install(bundle, *arguments)


def test_a_prefix_must_be_named(bundle: Path) -> None:
    finished = subprocess.run([str(bundle / "install")], capture_output=True, text=True)
    assert finished.returncode == 1
    assert "name the folder to install into" in finished.stderr
