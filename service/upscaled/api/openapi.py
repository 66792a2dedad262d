"""Generate the OpenAPI document from the endpoints, so that client generators can read it.

FastAPI generates it. What it cannot know is added here: the parameters and the body of
`POST /v1/upscale`, which the route reads by itself since FastAPI would read it before the API key
is checked, the limits that the settings give it, and headers that every response has.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

import upscaled
from upscaled import errors
from upscaled.api import idempotency, schemas
from upscaled.api.request import choices
from upscaled.api.reuse import REUSED_HEADER
from upscaled.config import MIN_INPUT_SIDE_PX, Settings
from upscaled.image.output import MAX_OUTPUT_SIDE_PX
from upscaled.state.results import EXTENSIONS

Document = dict[str, Any]

_HEADERS: Final[Document] = {
    "RequestId": {
        "description": "The client's own X-Request-Id where it is valid, else a new UUID",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "RetryAfter": {
        "description": "Seconds after which the same request would pass",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
}
REQUEST: Final[Document] = {
    "parameters": [
        *choices.CHOICE_PARAMETERS,
        idempotency.IDEMPOTENCY_PARAMETER,
        choices.PREFER_PARAMETER,
        idempotency.WEBHOOK_PARAMETER,
        choices.DRY_RUN_PARAMETER,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/UpscaleUpload"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/UpscaleByUrl"}},
        },
    },
}

_IMAGE_HEADERS: Final[Document] = {  # of `upscaled.api.upscale_steps.describe_result`
    name: {"description": description, "required": is_required, "schema": {"type": "string"}}
    for name, description, is_required in (
        ("Server-Timing", "Milliseconds in queue, decode, network and encode", True),
        (choices.MODEL_HEADER, "The model that made the image", True),
        (
            choices.DENOISE_HEADER,
            "The strength of denoising, where the request asked for one",
            False,
        ),
        (
            choices.TEMPERED_HEADER,
            "The faithful model that the result was mixed with; absent where it was not",
            False,
        ),
        (REUSED_HEADER, "`true` where the same picture's stored result was used again", False),
    )
} | {idempotency.REPLAYED_HEADER: idempotency.REPLAYED_DESCRIPTION}

RESPONSES: Final[dict[int | str, Document]] = {
    200: {
        "headers": _IMAGE_HEADERS,
        "content": dict.fromkeys(EXTENSIONS, schemas.BINARY),
    },
    202: {
        "model": schemas.Job,
        "description": "The job that the request was accepted as",
        "headers": {
            name: {"required": True, "schema": {"type": "string"}}
            for name in ("Location", "Preference-Applied")
        }
        | {idempotency.REPLAYED_HEADER: idempotency.REPLAYED_DESCRIPTION},
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


def generate_document(routes: Sequence[BaseRoute]) -> Document:
    """Return the document of the endpoints of `routes`, the same under all settings."""
    document = get_openapi(
        title="upscaled",
        version=upscaled.__version__,
        description="Self-hosted image upscaling by 2 or 4. Errors are always JSON with `error`, a "
        "text for people, and `error_code`, a word for programs.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=routes,
        separate_input_output_schemas=False,
    )
    components = document["components"]
    components["headers"] = _HEADERS
    components["schemas"] = _select_schemas(components["schemas"])
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
    return document


def add_settings(document: Document, settings: Settings) -> Document:
    """Return the document with the limits and the address of `settings`.

    It shares with the given one all that is the same: a full copy takes a fifth of a start.
    """
    open_to_all: Document = {"security": []} if settings.auth == "none" else {}
    paths = {
        path: {method: {**operation, **open_to_all} for method, operation in operations.items()}
        for path, operations in document["paths"].items()
    }
    paths[schemas.UPSCALE_PATH]["post"]["description"] = _describe_limits(settings)
    return {**document, "servers": [{"url": settings.public_base_url or "/"}], "paths": paths}


def keep_upload_only(document: Document) -> Document:
    """Return the document without the JSON body of an upscale.

    openapi-generator makes one method of an operation, from the first of its bodies: of a form it
    then has the fields, and of two bodies it mistakes the form's fields for JSON.
    """
    document = copy.deepcopy(document)
    del document["paths"][schemas.UPSCALE_PATH]["post"]["requestBody"]["content"][
        "application/json"
    ]
    return document


def _select_schemas(generated: Document) -> Document:
    """Return the schemas of all bodies, by name; without those of FastAPI's own 422.

    `Estimate` stands there without being the schema of an answer: a choice of two schemas under
    one status breaks what generators make of the operation.
    """
    bodies: list[Any] = [
        (schemas.UpscaleUpload, "validation"),
        (schemas.UpscaleByUrl, "validation"),
        (schemas.Estimate, "serialization"),
    ]
    _, of_requests = models_json_schema(bodies, ref_template="#/components/schemas/{model}")
    both = generated | of_requests["$defs"]
    return {name: both[name] for name in sorted(both) if "ValidationError" not in name}


def _complete(operation: Document) -> None:
    """Add what all operations have; remove the 422, which no parameter of ours can cause."""
    operation.setdefault("security", [])
    operation["responses"].pop("422", None)
    for status, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
        if status == "429":
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}


def _describe_limits(settings: Settings) -> str:
    return (
        f"{', '.join(sorted(settings.formats))}, recognised by their bytes; "
        f"each side at least {MIN_INPUT_SIDE_PX} px, at most "
        f"{settings.max_input_side_x2} px at scale 2 and {settings.max_input_side_x4} px at scale "
        f"4; at most {settings.max_file_bytes} bytes. The answer is a JPEG, or a PNG where the "
        f"image has an alpha channel, of exactly width x scale by height x scale, each side at "
        f"most {MAX_OUTPUT_SIDE_PX} px. `Accept: image/*` answers with the image itself, anything "
        "else with a URL to it."
    )
