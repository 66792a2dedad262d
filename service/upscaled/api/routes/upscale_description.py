"""Describe `POST /v1/upscale` for the OpenAPI document.

The route reads its body itself, since FastAPI would read it before the API key is checked. So
FastAPI cannot derive the parameters and the body from its code.
"""

from typing import Any, Final

from upscaled import errors
from upscaled.api import schemas
from upscaled.api.idempotency import IDEMPOTENCY_PARAMETER, REPLAYED_DESCRIPTION, REPLAYED_HEADER
from upscaled.api.request.choices import (
    CHOICE_PARAMETERS,
    DENOISE_HEADER,
    DRY_RUN_PARAMETER,
    MODEL_HEADER,
    PREFER_PARAMETER,
    TEMPERED_HEADER,
)
from upscaled.api.reuse import REUSED_HEADER
from upscaled.api.routes.jobs import WEBHOOK_PARAMETER
from upscaled.state.results import EXTENSIONS

REQUEST: Final[dict[str, Any]] = {
    "parameters": [
        *CHOICE_PARAMETERS,
        IDEMPOTENCY_PARAMETER,
        PREFER_PARAMETER,
        WEBHOOK_PARAMETER,
        DRY_RUN_PARAMETER,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/UpscaleUpload"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/UpscaleByUrl"}},
        },
    },
}

_IMAGE_HEADERS: Final[dict[str, Any]] = {  # of `upscaled.api.upscale_steps.describe_result`
    name: {"description": description, "required": is_required, "schema": {"type": "string"}}
    for name, description, is_required in (
        ("Server-Timing", "Milliseconds in queue, decode, network and encode", True),
        (MODEL_HEADER, "The model that made the image", True),
        (DENOISE_HEADER, "The strength of denoising, where the request asked for one", False),
        (
            TEMPERED_HEADER,
            "The faithful model that the result was mixed with; absent where it was not",
            False,
        ),
        (REUSED_HEADER, "`true` where the same picture's stored result was used again", False),
    )
} | {REPLAYED_HEADER: REPLAYED_DESCRIPTION}

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "headers": _IMAGE_HEADERS,
        "content": dict.fromkeys(EXTENSIONS, schemas.BINARY),
    },
    202: {
        "model": schemas.Job,
        "description": "The job that the request became, as it prefers",
        "headers": {
            name: {"required": True, "schema": {"type": "string"}}
            for name in ("Location", "Preference-Applied")
        }
        | {REPLAYED_HEADER: REPLAYED_DESCRIPTION},
    },
    **schemas.KEY_ERRORS,
    **schemas.describe_errors(
        errors.InvalidRequestBody,
        errors.MissingParameter,
        errors.InvalidParameter,
        errors.UnsupportedContentType,
        errors.MalformedImage,
        errors.UnsupportedImageFormat,
        errors.FileSizeTooLarge,
        errors.ResolutionTooHigh,
        errors.InsufficientApiCredits,
        errors.RequestInProgress,
    ),
}
