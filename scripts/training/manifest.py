"""Store a network as a default model: float16 weights and their entry in the manifest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from upscaled_models.families import Family, recognise

MANIFEST: Final = "manifest.json"

LICENCES: Final[Mapping[Family, str]] = {"srvgg": "BSD-3-Clause", "plain": "Apache-2.0"}
"""Compact networks start from Real-ESRGAN's published weights and stay under their licence, plain
ones are our own."""

KEEP_COLOUR: Final[frozenset[Family]] = frozenset({"plain"})
"""Families whose networks leave flat colours as they are by themselves."""


def store_default(state: Mapping[str, torch.Tensor], name: str, folder: Path) -> dict[str, Any]:
    """Store weights as `folder/name.safetensors` in float16, and return their manifest entry.

    Raises:
        UnknownArchitecture: the weights are of no known network.
        ValueError: another entry of the manifest shares the file that would change, or no default
            model is of the network's family.
    """
    weights = {key: value.half().contiguous() for key, value in state.items()}
    family, shape = recognise({key: tuple(value.shape) for key, value in weights.items()})
    if family not in LICENCES:
        raise ValueError(f"{name}: no default model is a {family} network")
    path, manifest_path = folder / f"{name}.safetensors", folder / MANIFEST
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    sharers = [other for other, entry in manifest.items() if entry.get("same_as") == name]
    if sharers and not _holds(path, weights):
        raise ValueError(
            f"{manifest_path}: {', '.join(sharers)} shares the file of {name}, which would change: "
            "give it a file of its own first"
        )
    described = {"family": family, **{key: str(value) for key, value in shape.items()}}
    save_file(weights, path, metadata=described)
    path.chmod(0o644)  # the library leaves it readable to its maker alone
    content = path.read_bytes()
    entry = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "family": family,
        "shape": dict(shape),
        "licence": LICENCES[family],
        "bits": 16,
        "keeps_colour": family in KEEP_COLOUR,
    }
    ordered = dict(sorted({**manifest, name: entry}.items()))
    manifest_path.write_text(json.dumps(ordered, indent=2) + "\n")
    return entry


def _holds(path: Path, weights: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a file holds these weights already, for which its second name stands too."""
    before = load_file(path) if path.exists() else {}
    return before.keys() == weights.keys() and all(
        torch.equal(before[key], weights[key]) for key in weights
    )
