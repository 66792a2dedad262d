"""All that a result depends on beside its source."""

import hashlib
import json
from typing import Final

from models.registry import ModelSpec
from service.config import Settings

MAX_RESULT_SIDE_PX: Final = 20_000
"""20,000 x 20,000 pixels take 1.2 GB while they are made; JPEG itself ends at 65,500 a side."""

FORMAT: Final = 1
"""Of the way from source to result: where it changes, everything is made again."""


def fingerprint(settings: Settings, scale: int, spec: ModelSpec) -> bytes:
    """SHA-256 of it: the same where a result would be the same, as far as anyone asked for it.

    The number type that `precision` came to on a machine is not in it: a batch that moves to
    another machine goes on there.
    """
    facts = {
        "format": FORMAT,
        "scale": scale,
        "model": spec.name,
        "weights": [spec.sha256, *([spec.wdn.sha256] if spec.wdn else [])],
        "denoise": settings.denoise if spec.wdn else None,
        "precision": settings.precision,
        "jpeg_quality": settings.jpeg_quality,
        "colour_lock": settings.colour_lock,
        "keep_copyright": settings.keep_copyright,
        "deep_png": settings.deep_png,
        "max_result_side_px": MAX_RESULT_SIDE_PX,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
