import os
import pty
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.bundling.assembling import NAMESPACE, TIME_S, pack, sign, write_facts, write_manifest
from scripts.bundling.parts import read_wheel
from scripts.bundling.target import CannotBundle, Target
from tests.scripts.bundling.making import make_signing_key, make_wheel

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


@pytest.mark.parametrize(("tag", "glibc"), [("manylinux_2_27_x86_64", "2.27"), ("any", "2.36")])
def test_the_facts_name_the_oldest_c_library_that_all_wheels_run_on(
    folder: Path, tmp_path: Path, tag: str, glibc: str
) -> None:
    """The target's own where no wheel needs one."""
    made = [make_wheel(tmp_path, name) for name in ("upscaled", "pip")]
    made.append(make_wheel(tmp_path, "part", tags=f"cp311-none-{tag}"))
    name = write_facts(
        list(map(read_wheel, made)), Target("3.11", (2, 36), "x86_64", "cpu"), folder
    )
    assert name == f"upscaled-1.0-cp311-manylinux_{glibc.replace('.', '_')}_x86_64-cpu"
    assert set((folder / "facts").read_text().splitlines()) == {
        *("version=1.0", "python=3.11", "machine=x86_64", "accelerator=cpu", f"glibc={glibc}")
    }
    pinned = (folder / "requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in pinned] == ["upscaled", "part"]


def test_sha256sum_reads_the_list(folder: Path) -> None:
    write_manifest(folder)
    assert _is_right(folder)
    (folder / "wheels" / "part.whl").write_bytes(b"wheal")
    assert not _is_right(folder)


@needs_ssh_keygen
def test_ssh_keygen_verifies_the_signature_and_names_the_signer(
    folder: Path, tmp_path: Path
) -> None:
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
    with pytest.raises(CannotBundle, match="nowhere"):
        sign(write_manifest(folder), tmp_path / "nowhere")


_SIGNING = """
import fcntl, sys, termios
from pathlib import Path
from scripts.bundling.assembling import sign
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sign(Path(sys.argv[1]), Path(sys.argv[2]))
"""
"""Signs a list at the terminal that is its standard input."""


@pytest.mark.slow
@needs_ssh_keygen
def test_a_key_s_passphrase_is_asked_for_at_the_terminal(folder: Path, tmp_path: Path) -> None:
    """Even with a screen, where ssh-keygen opens a window if its standard input is none."""
    manifest = write_manifest(folder)
    key = make_signing_key(tmp_path / "key", passphrase="a secret")
    leader, follower = pty.openpty()
    signing = subprocess.Popen(
        [sys.executable, "-c", _SIGNING, str(manifest), str(key)],
        env={**os.environ, "DISPLAY": ":99"},
        stdin=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    said = b""
    with open(leader, "r+b", buffering=0) as terminal, suppress(OSError):
        # Linux answers EIO, other systems nothing more, when the other end is closed.
        while chunk := terminal.read(65_536):
            said += chunk
            if b"Enter passphrase" in chunk:
                terminal.write(b"a secret\n")
    assert signing.wait() == 0, said.decode()
    assert manifest.with_name("MANIFEST.sha256.sig").exists()


def _make(root: Path, names: list[str], umask: int, time_s: int) -> Path:
    before = os.umask(umask)
    try:
        folder = root / "upscaled"
        (folder / "wheels").mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
            os.utime(folder / name, (time_s, time_s))
        (folder / "install").chmod(0o700)
    finally:
        os.umask(before)
    return folder


def test_the_same_files_give_the_same_archive_for_every_user(tmp_path: Path) -> None:
    names = ["install", "wheels/b.whl", "wheels/a.whl"]
    one = _make(tmp_path / "one", names, 0o022, 1)
    other = _make(tmp_path / "other", names[::-1], 0o077, 10**9)
    pack(one, tmp_path / "one.tar")
    pack(other, tmp_path / "other.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_it_unpacks_into_one_folder_that_everybody_can_read(tmp_path: Path) -> None:
    pack(_make(tmp_path, ["install", "wheels/a.whl"], 0o077, 1), tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as archive:
        entries = {entry.name: (entry.mode, entry.uid, entry.mtime) for entry in archive}
    assert entries == {
        "upscaled": (0o755, 0, TIME_S),
        "upscaled/install": (0o755, 0, TIME_S),
        "upscaled/wheels": (0o755, 0, TIME_S),
        "upscaled/wheels/a.whl": (0o644, 0, TIME_S),
    }


def test_the_date_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    pack(_make(tmp_path, ["install"], 0o022, 1), tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as archive:
        assert {entry.mtime for entry in archive} == {1_700_000_000}


def test_nothing_is_left_of_an_archive_that_could_not_be_finished(tmp_path: Path) -> None:
    folder = _make(tmp_path, ["install"], 0o022, 1)
    with pytest.raises(OSError, match="File exists"):
        pack(folder, folder / "install" / "archive.tar")
    (folder / "wheels" / "gone").symlink_to("nowhere")
    pack(folder, tmp_path / "archive.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar", "upscaled"]


def test_a_missing_ssh_keygen_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBundle, match=r"ssh-keygen is not installed \(Debian: openssh-client"):
        sign(tmp_path / "MANIFEST.sha256", tmp_path / "key")
