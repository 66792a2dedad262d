"""GET /v1/models: the models that a request may name, and the choices of `auto`."""

import asyncio
from typing import Final

from fastapi import APIRouter

from upscaled.api import schemas
from upscaled.api.dependencies import AdmittedKey, AppContext
from upscaled.api.request.available_models import read_available_models, scales_of
from upscaled.pool.executor import PoolStats
from upscaled.upscale.model_choice import Rung
from upscaled_models.registry import ModelSpec

PX_PER_MEGAPIXEL: Final = 1_000_000

router = APIRouter()


@router.head("/v1/models", include_in_schema=False)
@router.get(
    "/v1/models",
    operation_id="list_models",
    summary="The models that a request may name",
    description="A picture of at most `most_input_px` pixels goes to the first model of `auto`, if "
    "that is not for pictures with compression artefacts or noise alone (`harmed_only`).",
    response_description="The models present on this server",
    responses=schemas.KEY_ERRORS,
)
async def list_models(context: AppContext, key: AdmittedKey) -> schemas.ModelList:
    """List the models that are present. Counts against the key's rate."""
    available = await asyncio.to_thread(read_available_models, context.settings.models_dir)
    return describe_models(available, context.executor.stats())


def describe_models(available: tuple[ModelSpec, ...], stats: PoolStats) -> schemas.ModelList:
    """Return the response's body.

    `auto` is empty, and seconds are null, until a worker has reported what it measured.
    """
    return schemas.ModelList(
        models=[_describe(spec, stats) for spec in available],
        auto={
            str(scale): [_describe_rung(rung) for rung in ladder]
            for scale, ladder in sorted(stats.ladders.items())
        },
    )


def _describe(spec: ModelSpec, stats: PoolStats) -> schemas.Model:
    scales = scales_of(spec)
    return schemas.Model(
        name=spec.name,
        native_scale=spec.native_scale,
        scales=[schemas.Scale(scale) for scale in scales],
        licence=spec.licence,
        bits=spec.bits,
        source=spec.source,
        same_as=spec.same_as or None,
        denoise=spec.wdn is not None,
        auto_scales=[
            schemas.Scale(scale)
            for scale, ladder in sorted(stats.ladders.items())
            if any(rung.model == spec.name for rung in ladder)
        ],
        seconds_per_megapixel={
            str(scale): _seconds_per_megapixel(spec, scale, stats) for scale in scales
        },
    )


def _seconds_per_megapixel(spec: ModelSpec, scale: int, stats: PoolStats) -> float | None:
    """Return what the model took, or the one whose file it is; None if neither was measured.

    Rounded to three significant digits: what is measured is no more exact.
    """
    known = stats.seconds_per_px
    seconds_per_px = known.get((spec.name, scale), known.get((spec.weights_key, scale)))
    if seconds_per_px is None:
        return None
    return float(f"{seconds_per_px * PX_PER_MEGAPIXEL:.3g}")


def _describe_rung(rung: Rung) -> schemas.AutoChoice:
    return schemas.AutoChoice(
        model=rung.model,
        tempered_with=rung.tempered_with or None,
        most_input_px=rung.most_px,
        most_input_px_16_bits=rung.most_deep_px,
        harmed_only=rung.harmed_only,
    )
