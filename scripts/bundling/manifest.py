"""Manifest of a bundle: the SHA-256 of every file, and a signature of that list.

The list is what `sha256sum --check` reads, the signature what `ssh-keygen -Y verify` does: both are
on every Debian machine that one can log in to, and need nothing of the bundle to be trusted.
"""

import subprocess
from pathlib import Path

from upscaled_models.files import hash_file

MANIFEST = "MANIFEST.sha256"
SIGNATURE = f"{MANIFEST}.sig"
NAMESPACE = "upscaled-bundle"
"""Purpose of a signature: one made for something else with the same key does not count."""


class SigningFailed(RuntimeError):
    """ssh-keygen made no signature; the text is its own."""


def write_manifest(folder: Path) -> Path:
    """List every file under `folder`, by path in alphabetical order."""
    manifest = folder / MANIFEST
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    manifest.write_text("".join(lines))
    return manifest


def sign(manifest: Path, key: Path) -> Path:
    """Sign the list with an SSH key; a public one will do where an agent holds its other half.

    ssh-keygen may ask for the key's passphrase.

    Raises:
        SigningFailed: there is no such key, or the passphrase was wrong.
    """
    signature = manifest.with_name(SIGNATURE)
    signature.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest)]
    try:
        finished = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise SigningFailed("ssh-keygen is not installed (Debian: openssh-client)") from error
    if finished.returncode != 0 or not signature.is_file():
        raise SigningFailed(f"{key}: {finished.stderr.strip()}")
    return signature
