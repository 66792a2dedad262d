"""Ship a distilled student as a default model: weights, manifest entry, and the file in 8 bits."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from scripts.training.manifest import store_default
from upscaled_models.errors import ModelRefused
from upscaled_models.quantise.files import parse_layers, quantised_path, record_path
from upscaled_models.quantise.prepare import quantise
from upscaled_models.quantise.record import QuantisedRecord
from upscaled_models.registry import read_default_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import recognise_file


def ship_student(
    student: Path,
    name: str,
    folder: Path,
    photos: Path | None,
    *,
    steps: int,
    say: Callable[[str], None],
    tuned: Path | None = None,
) -> QuantisedRecord | None:
    """Store a student as `folder/name.safetensors` with its entry, and prepare it in 8 bits.

    Where 8 bits are too far from float32, none are shipped, and None is returned.

    Args:
        student: what `scripts/train student` wrote, or any weights file of a known network.
        folder: of the default models; its manifest's other entries stay.
        photos: a folder to calibrate 8 bits with, beside drawn pages and flat colours.
        steps: of tuning in 8 bits, about a second each; 0 to ship none without trying.
        say: called with lines for people.
        tuned: layers in 8 bits that `scripts/train eight-bits` wrote, in place of tuning here.

    Raises:
        WeightsError: the student is damaged, or of no known network.
        ValueError: another entry of the manifest shares the file that would change, or the network
            is of a family that no default model is of.
    """
    recognise_file(student)
    entry = store_default(load_file(student), name, folder)
    say(f"{name}: {entry['size_bytes']} bytes, SHA-256 {entry['sha256']}")
    read_default_models.cache_clear()  # the manifest has changed
    spec = ModelStore(folder, default_dir=folder).find(name)
    weights = folder / entry["file"]
    for path in (quantised_path(weights), record_path(weights)):
        path.unlink(missing_ok=True)  # of the weights before
    if not steps:
        return None
    try:
        layers = parse_layers(tuned.read_bytes(), tuned) if tuned else None
        return quantise(spec, weights, photos, steps=steps, say=say, tuned=layers)
    except ModelRefused as error:
        say(f"no 8 bits are shipped: {error}")
        return None
