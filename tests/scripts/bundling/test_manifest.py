import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.bundling.manifest import NAMESPACE, SigningFailed, sign, write_manifest
from tests.scripts.bundling.making import make_signing_key

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="needs ssh-keygen to sign with"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "install").write_text("#!/bin/sh\n")
    (folder / "wheels" / "part.whl").write_bytes(b"wheel")
    return folder


def _is_right(folder: Path) -> bool:
    command = ["sha256sum", "--check", "--strict", "--quiet", "MANIFEST.sha256"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def test_every_file_is_listed_in_order(folder: Path) -> None:
    lines = write_manifest(folder).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["install", "wheels/part.whl"]


def test_sha256sum_reads_the_list(folder: Path) -> None:
    write_manifest(folder)
    assert _is_right(folder)
    (folder / "wheels" / "part.whl").write_bytes(b"wheal")
    assert not _is_right(folder)


@needs_ssh_keygen
def test_ssh_keygen_says_whose_the_list_is(folder: Path, tmp_path: Path) -> None:
    manifest = write_manifest(folder)
    key = make_signing_key(tmp_path / "key")
    signature = sign(manifest, key)
    signers = tmp_path / "signers"
    signers.write_text("bundle " + key.with_suffix(".pub").read_text())
    command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "bundle", "-n", NAMESPACE]
    with manifest.open() as signed:
        verified = subprocess.run([*command, "-s", str(signature)], stdin=signed)
    assert verified.returncode == 0


@needs_ssh_keygen
def test_the_same_list_and_key_give_the_same_signature(folder: Path, tmp_path: Path) -> None:
    manifest = write_manifest(folder)
    key = make_signing_key(tmp_path / "key")
    assert sign(manifest, key).read_bytes() == sign(manifest, key).read_bytes()


@needs_ssh_keygen
def test_a_key_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SigningFailed, match="nowhere"):
        sign(write_manifest(folder), tmp_path / "nowhere")
