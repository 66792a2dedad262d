"""Small parts to make bundles from."""

import subprocess
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from upscaled_models.families.plain import plain_shape
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network


def make_signing_key(path: Path, passphrase: str = "") -> Path:
    """Make an SSH key; its public half is beside it, with `.pub`."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def make_own_model(name: str, models_dir: Path) -> None:
    """Add a small network with drawn weights to a folder of models, as users do."""
    torch.manual_seed(0)
    network = build_network("plain", plain_shape(scale=2, layers=2, features=8))
    models_dir.mkdir(parents=True, exist_ok=True)
    weights = models_dir / "weights.safetensors"
    save_file(network.state_dict(), weights)
    ModelStore(models_dir).add(name, weights)
    weights.unlink()


def make_wheel(
    folder: Path, name: str, *lines: str, version: str = "1.0", tags: str = "py3-none-any"
) -> Path:
    """Make a wheel with one empty module; `lines` are further lines of its metadata."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-{tags}.whl"
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    info = f"{stem}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name.replace('-', '_')}.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join([*head, *lines]) + "\n\n")
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path
