"""One file out of a folder: its list of hashes, that list's signature, and a tar file of it all.

The list is what `sha256sum --check` reads, the signature what `ssh-keygen -Y verify` does: both are
on every Debian machine that one can log in to, and need nothing of the bundle to be trusted.
"""

import os
import subprocess
import tarfile
from pathlib import Path

from scripts.bundling.target import CannotBundle
from upscaled_models.files import hash_file

NAMESPACE = "upscaled-bundle"
"""Purpose of a signature: one made for something else with the same key does not count."""

TIME_S = 1_580_601_600
"""The date of every file, unless SOURCE_DATE_EPOCH says another; hatchling takes the same."""


def write_manifest(folder: Path) -> Path:
    """List every file under `folder`, by path in alphabetical order."""
    manifest = folder / "MANIFEST.sha256"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    manifest.write_text("".join(lines))
    return manifest


def sign(manifest: Path, key: Path) -> Path:
    """Sign the list with an SSH key; a public one will do where an agent holds its other half.

    ssh-keygen may ask for the key's passphrase.

    Raises:
        CannotBundle: there is no such key, or the passphrase was wrong.
    """
    signature = manifest.with_name(f"{manifest.name}.sig")
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest)]
    try:
        subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError as error:
        raise CannotBundle("ssh-keygen is not installed (Debian: openssh-client)") from error
    except subprocess.CalledProcessError as error:
        raise CannotBundle(f"{key}: {error.stderr.strip()}") from error
    return signature


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` to `archive`, a tar file, whole or not at all.

    Nothing in it depends on who packs: owner, date, umask. It is not compressed: wheels are, and
    weights hardly can be.

    Raises:
        OSError: it cannot be written.
    """
    half_made = archive.with_name(f".{archive.name}.part")
    try:
        with tarfile.open(half_made, "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(folder, folder.name, filter=_forget_origin)  # in alphabetical order
        half_made.replace(archive)
    finally:
        half_made.unlink(missing_ok=True)


def _forget_origin(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    time_s = int(os.environ.get("SOURCE_DATE_EPOCH", TIME_S))
    return entry.replace(uid=0, gid=0, uname="", gname="", mode=mode, mtime=time_s, deep=False)
