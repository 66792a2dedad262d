"""GET /v1/models: the models that a request may name, and which of them `auto` takes for what."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.auth import admit
from upscaled.api.available_models import read_present_models, scales_of
from upscaled.api.context import context_of
from upscaled.pool.stats import PoolFigures
from upscaled.upscale.model_choice import Rung
from upscaled_models.registry import ModelSpec

PX_PER_MEGAPIXEL = 1_000_000


async def answer_models(request: Request) -> Response:
    """List the models that are present. Counts against the key's rate, as `GET /v1/credits` does.

    Raises:
        InvalidAuthToken, RateLimitExceeded.
    """
    context = context_of(request)
    await admit(request)
    present = await asyncio.to_thread(read_present_models, context.settings.models_dir)
    body = describe_models(present, context.executor.figures())
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def describe_models(present: tuple[ModelSpec, ...], figures: PoolFigures) -> dict[str, Any]:
    """The answer's body.

    `auto` is empty, and seconds are null, until a worker has said what it measured.
    """
    return {
        "models": [_describe(spec, figures) for spec in present],
        "auto": {
            str(scale): [_describe_rung(rung) for rung in ladder]
            for scale, ladder in sorted(figures.ladders.items())
        },
    }


def _describe(spec: ModelSpec, figures: PoolFigures) -> dict[str, Any]:
    return {
        "name": spec.name,
        "native_scale": spec.native_scale,
        "scales": list(scales_of(spec)),
        "licence": spec.licence,
        "bits": spec.bits,
        "source": spec.source,
        "same_as": spec.same_as or None,
        "auto_scales": _auto_scales(spec.name, figures.ladders),
        "seconds_per_megapixel": {
            str(scale): _seconds_per_megapixel(_seconds_per_px(spec, scale, figures))
            for scale in scales_of(spec)
        },
    }


def _seconds_per_px(spec: ModelSpec, scale: int, figures: PoolFigures) -> float | None:
    """What the model took, or the one whose file it is; None where neither has been measured."""
    known = figures.seconds_per_px
    return known.get((spec.name, scale), known.get((spec.file_owner, scale)))


def _auto_scales(model: str, ladders: Mapping[int, tuple[Rung, ...]]) -> list[int]:
    return [
        scale
        for scale, ladder in sorted(ladders.items())
        if any(rung.model == model for rung in ladder)
    ]


def _describe_rung(rung: Rung) -> dict[str, Any]:
    return {
        "model": rung.model,
        "tempered_with": rung.tempered_with or None,
        "most_input_px": rung.most_px,
        "most_input_px_16_bits": rung.most_deep_px,
        "harmed_only": rung.harmed_only,
    }


def _seconds_per_megapixel(seconds_per_px: float | None) -> float | None:
    """Three significant digits: what is measured is no more exact."""
    if seconds_per_px is None:
        return None
    return float(f"{seconds_per_px * PX_PER_MEGAPIXEL:.3g}")
