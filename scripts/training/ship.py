"""Ship a distilled student as a default model: weights, manifest entry, and the file in 8 bits."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file

from scripts.training.export import MANIFEST
from upscaled_models.errors import ModelRefused
from upscaled_models.families import Family
from upscaled_models.quantise.files import quantised_path, record_path
from upscaled_models.quantise.prepare import quantise
from upscaled_models.quantise.record import QuantisedRecord
from upscaled_models.registry import read_default_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import recognise_file

LICENCES: Final[Mapping[Family, str]] = {"srvgg": "BSD-3-Clause", "plain": "Apache-2.0"}
"""Compact students start from Real-ESRGAN's published weights and stay under their licence, plain
ones from our own."""

KEEP_COLOUR: Final[frozenset[Family]] = frozenset({"plain"})
"""Families whose networks leave flat colours as they are by themselves."""


def ship_student(
    student: Path,
    name: str,
    folder: Path,
    photos: Path | None,
    *,
    steps: int,
    say: Callable[[str], None],
) -> QuantisedRecord | None:
    """Store a student as `folder/name.safetensors` with its entry, and prepare it in 8 bits.

    Where 8 bits are too far from float32, none are shipped, and None is returned.

    Args:
        student: what `scripts/train student` wrote, or any weights file of a known network.
        folder: of the default models; its manifest's other entries stay.
        photos: a folder to calibrate 8 bits with, beside drawn pages and flat colours.
        steps: of tuning in 8 bits, about a second each; 0 to ship none without trying.
        say: called with lines for people.

    Raises:
        WeightsError: the student is damaged, or of no known network.
        ValueError: another entry of the manifest shares the file that would change, or the network
            is of a family that no student is of.
    """
    entry = _store(student, name, folder)
    say(f"{name}: {entry['size_bytes']} bytes, SHA-256 {entry['sha256']}")
    read_default_models.cache_clear()  # the manifest has changed
    spec = ModelStore(folder, default_dir=folder).find(name)
    weights = folder / entry["file"]
    for path in (quantised_path(weights), record_path(weights)):
        path.unlink(missing_ok=True)  # of the weights before
    if not steps:
        return None
    try:
        return quantise(spec, weights, photos, steps=steps, say=say)
    except ModelRefused as error:
        say(f"no 8 bits are shipped: {error}")
        return None


def _store(student: Path, name: str, folder: Path) -> dict[str, Any]:
    """Write the weights as float16 and their manifest entry, and return the entry."""
    family, shape = recognise_file(student)
    if family not in LICENCES:
        raise ValueError(f"{student}: no student is a {family} network")
    manifest_path = folder / MANIFEST
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    sharers = [other for other, entry in manifest.items() if entry.get("same_as") == name]
    if sharers:
        raise ValueError(
            f"{manifest_path}: {', '.join(sharers)} shares the file of {name}, which would change: "
            "give it a file of its own first"
        )
    path = folder / f"{name}.safetensors"
    weights = {key: value.half().contiguous() for key, value in load_file(student).items()}
    save_file(weights, path, metadata={"family": family})
    path.chmod(0o644)  # the library leaves it readable to its maker alone
    content = path.read_bytes()
    manifest[name] = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "family": family,
        "shape": dict(shape),
        "licence": LICENCES[family],
        "bits": 16,
        "keeps_colour": family in KEEP_COLOUR,
    }
    manifest_path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")
    return dict(manifest[name])
