"""Fingerprint all that a result depends on beside its source."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from upscaled.config import Settings
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.named_models import find_denoise
from upscaled.upscale.result import MAX_RESULT_SIDE_PX
from upscaled_models.store import ModelStore

FORMAT: Final = 1
"""Version of the way from source to result: where it changes, every result is made again."""

TEMPERING_FORMAT: Final = 1
"""Version of tempering and of the measuring of harm: where either changes, what depends on it is
made again."""


def fingerprint(
    settings: Settings, scale: int, rungs: Sequence[Rung], choice: OutputChoice = NO_CHOICE
) -> bytes:
    """Return a SHA-256 of the settings and weights behind a result, equal where it would be equal.

    How large pictures may be for a model on a machine is not in it, nor the number type that
    `precision` came to there, but the models that the source may come to (`rungs`): a batch that
    moves to another machine goes on there with the pictures that the same model would make.
    """
    find = ModelStore(settings.models_dir).find
    first, *others = rungs
    spec = find(first.model)
    inputs: dict[str, object] = {
        "format": FORMAT,
        "scale": scale,
        "model": spec.name,
        "weights": spec.hashes,
        "denoise": find_denoise(settings, spec) if spec.wdn else None,
        "precision": settings.precision,
        "jpeg_quality": settings.jpeg_quality,
        "colour_lock": settings.colour_lock,
        "keep_copyright": settings.keep_copyright,
        "deep_png": settings.deep_png,
        "max_result_side_px": MAX_RESULT_SIDE_PX,
    }
    if others or first.tempered_with:
        inputs["temper"] = settings.temper
        inputs["tempering_format"] = TEMPERING_FORMAT
        inputs["rungs"] = [
            [
                rung.harmed_only,
                *(find(name).hashes for name in (rung.model, rung.tempered_with) if name),
            ]
            for rung in rungs
        ]
    if choice != NO_CHOICE:
        inputs["choice"] = choice.changes()
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()
