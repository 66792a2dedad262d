"""The OpenAPI document: the contract in the words of machines. Tests hold the service to it."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from upscaled import errors
from upscaled.api.available_models import MODEL_HEADER, TEMPERED_HEADER
from upscaled.api.progress import ARRIVAL_WAIT_S, MAX_WATCHERS_PER_KEY
from upscaled.api.routes.credits import UNMETERED_CREDITS
from upscaled.api.routes.progress import PROGRESS_PATH
from upscaled.api.routes.results import RESULT_PATH
from upscaled.config import MAX_OUTPUT_SIDE_PX, MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import ServiceError
from upscaled.fetch.url import MAX_URL_CHARACTERS
from upscaled_models.store import MAX_NAME_CHARACTERS, NAME_PATTERN

Document = dict[str, Any]

REQUEST_ERRORS: Final = (
    errors.InvalidRequestBody,
    errors.MissingParameter,
    errors.InvalidParameter,
    errors.UnsupportedContentType,
    errors.MalformedImage,
    errors.UnsupportedImageFormat,
    errors.FileSizeTooLarge,
    errors.ResolutionTooHigh,
)
_REQUEST_ID: Final[Document] = {
    "X-Request-Id": {
        "description": "The client's own X-Request-Id where it is sane, else a new UUID",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    }
}
_BINARY: Final[Document] = {"type": "string", "contentMediaType": "application/octet-stream"}


def build_openapi(settings: Settings) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "upscaled",
            "version": version("upscaled"),
            "description": "Self-hosted image upscaling by 2 or 4. Errors are always JSON with "
            "`error`, a text for people, and `error_code`, a word for programs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/upscale": {"post": _upscale(settings)},
            "/v1/credits": _read("credits", "Credits left to this API key", _credits()),
            "/v1/models": _read("models", "The models a request may name", _models()),
            PROGRESS_PATH + "{request_id}": _read(
                "progress", "How far a request of this API key is, while it runs", _progress()
            ),
            RESULT_PATH + "{file_name}": _read("result", "A finished image", _result(settings)),
            "/healthz": _read("health", "Whether the process answers", _status("ok")),
            "/readyz": _read("readiness", "Whether an image sent now would be taken", _ready()),
            "/metrics": _read("metrics", "Figures for Prometheus", _text("text/plain")),
            "/openapi.json": _read("openapi", "This document", _text("application/json")),
            "/docs": _read("docs", "This document, for people", _text("text/html")),
            "/": _read("playground", "A page to try it on", _text("text/html")),
        },
        "components": {
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
            },
        },
    }


def _upscale(settings: Settings) -> Document:
    return {
        "operationId": "upscale",
        "summary": "Upscale one image",
        "description": f"{_name_formats(settings)}; "
        f"each side at least {MIN_INPUT_SIDE_PX} px, at most "
        f"{settings.max_input_side_x2} px at scale 2 and {settings.max_input_side_x4} px at scale "
        f"4; at most {settings.max_file_bytes} bytes. The answer is a JPEG, or a PNG where the "
        f"image has an alpha channel, of exactly width x scale by height x scale, each side at "
        f"most {MAX_OUTPUT_SIDE_PX} px. `Accept: image/*` answers with the image itself, anything "
        "else with a URL to it.",
        "security": [{"api_key": []}],
        "parameters": [_model_header()],
        "requestBody": {"required": True, "content": _upscale_bodies()},
        "responses": {
            "200": {
                "description": "The image, or where it is",
                "headers": _REQUEST_ID | _server_timing() | _models_taken(),
                "content": {
                    "application/json": {"schema": _closed_object(result_url={"type": "string"})},
                    "image/jpeg": {"schema": _BINARY},
                    "image/png": {"schema": _BINARY},
                },
            },
            **_keyed_errors(),
            "400": _errors(REQUEST_ERRORS),
            "403": _errors([errors.InsufficientApiCredits]),
        },
    }


def _name_formats(settings: Settings) -> str:
    return ", ".join(sorted(settings.formats)) + ", told by its bytes"


def _upscale_bodies() -> Document:
    image_url = {"type": "string", "format": "uri", "maxLength": MAX_URL_CHARACTERS}
    return {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["image_url", "scale"],
                "properties": {"image_url": image_url, "scale": {"enum": [2, 4, "2", "4"]}},
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "description": "Where both are given, `image` wins and the URL is not fetched.",
                "required": ["scale"],
                "anyOf": [
                    {"required": ["image"]},
                    {"required": ["image_url"], "properties": {"image_url": image_url}},
                ],
                "properties": {
                    "image": {"type": "string", "format": "binary"},
                    "image_url": {"type": "string"},
                    "scale": {"enum": ["2", "4"]},
                },
            }
        },
    }


def _read(operation_id: str, summary: str, details: Document) -> Document:
    """A path with GET, and with HEAD, which answers the same without a body."""
    head = {code: {**answer} for code, answer in details["responses"].items()}
    for answer in head.values():
        answer.pop("content", None)
    shared = {key: value for key, value in details.items() if key != "responses"}
    return {
        "get": {"operationId": operation_id, "summary": summary, **details},
        "head": {
            "operationId": f"{operation_id}_head",
            "summary": f"{summary}: the head alone",
            **shared,
            "responses": head,
        },
    }


def _credits() -> Document:
    whole = {"type": "integer"}
    meaning = f"The balance; always {UNMETERED_CREDITS} with metering off"
    content = _json(_closed_object(credits_remaining=whole, creditsRemaining=whole))
    return {
        "security": [{"api_key": []}],
        "responses": {"200": _answer(meaning, content), **_keyed_errors()},
    }


def _model_header() -> Document:
    return {
        "name": MODEL_HEADER,
        "in": "header",
        "required": False,
        "description": "The model to take, one that `GET /v1/models` lists, or `auto`, which is "
        "the same as no header: the best model that the server can afford for the picture. A "
        "model that is not present, or is named twice, is `invalid_parameter`; nothing is charged.",
        "schema": {
            "type": "string",
            "pattern": f"^{NAME_PATTERN}$",
            "maxLength": MAX_NAME_CHARACTERS,
            "default": "auto",
        },
    }


def _models_taken() -> Document:
    name: Document = {"type": "string"}
    return {
        MODEL_HEADER: {
            "description": "The model that made the image",
            "required": True,
            "schema": name,
        },
        TEMPERED_HEADER: {
            "description": "The faithful model that the result was mixed with; absent where it "
            "was not",
            "required": False,
            "schema": name,
        },
    }


def _models() -> Document:
    scales: Document = {"type": "array", "items": {"enum": [2, 4]}}
    seconds: Document = {"type": ["number", "null"]}
    model = _closed_object(
        name={"type": "string"},
        native_scale={"type": "integer"},
        scales=scales,
        licence={"type": "string"},
        bits={"enum": [16, 32]},
        source={"enum": ["default", "official", "user"]},
        same_as={"type": ["string", "null"]},
        auto_scales=scales,
        seconds_per_megapixel={"type": "object", "additionalProperties": seconds},
    )
    rung = _closed_object(
        model={"type": "string"},
        tempered_with={"type": ["string", "null"]},
        most_input_px={"type": ["integer", "null"]},
        most_input_px_16_bits={"type": ["integer", "null"]},
        harmed_only={"type": "boolean"},
    )
    ladders = {"type": "object", "additionalProperties": {"type": "array", "items": rung}}
    body = _closed_object(models={"type": "array", "items": model}, auto=ladders)
    return {
        "description": "`models`: those present on the server. `bits`: of a weight in the file. "
        "`same_as`: the model whose file it is, where the name is a second one. "
        "`auto_scales`: where `auto` may take it. `seconds_per_megapixel`: of input, by scale, on "
        "this server; null until measured. `auto`: by scale, the models that `auto` chooses from, "
        "best first. A picture of at most `most_input_px` pixels (null: any; in 16 bits a channel "
        "`most_input_px_16_bits`) goes to the first, "
        "if that is not for pictures with compression artefacts or noise alone (`harmed_only`).",
        "security": [{"api_key": []}],
        "responses": {
            "200": _answer("The models present", _json(body)),
            **_keyed_errors(),
        },
    }


def _progress() -> Document:
    description = (
        "Server-sent events, for a request that was sent with an `X-Request-Id` of the client's "
        "own: `progress` with `stage` (receive, queue, network, encode), `tiles_done`, "
        "`tiles_total` (null until known) and `remaining_s` (an estimate for the network, from its "
        "begin on; null before), then one `end` with `error_code` (null after a success). An id "
        "that nobody sent, that belongs to another key or whose request is over is not found; one "
        f"that is not known yet is waited for, {ARRIVAL_WAIT_S:g} s. Takes nothing from the rate; "
        f"at most {MAX_WATCHERS_PER_KEY} at once for each key."
    )
    events: Document = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        "description": description,
        "security": [{"api_key": []}],
        "parameters": [
            {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {
            "200": _answer("Events until the request ends", events),
            **_keyed_errors(),
            "404": _errors([errors.NotFound]),
        },
    }


def _result(settings: Settings) -> Document:
    images = {"image/jpeg": {"schema": _BINARY}, "image/png": {"schema": _BINARY}}
    return {
        "parameters": [
            {"name": "file_name", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {
            "200": _answer(f"The image, for {settings.result_ttl_s} s from its creation", images),
            "404": _errors([errors.NotFound]),
            "500": _errors([errors.InternalError]),
        },
    }


def _status(word: str) -> Document:
    return {"responses": {"200": _answer(word, _json(_closed_object(status={"const": word})))}}


def _ready() -> Document:
    answers = _status("ready")["responses"]
    return {"responses": {**answers, "503": _errors([errors.InternalError])}}


def _text(media_type: str) -> Document:
    return {"responses": {"200": _answer("As said", {media_type: {}})}}


def _keyed_errors() -> Document:
    """What any path behind an API key may answer."""
    too_many = _errors([errors.RateLimitExceeded])
    too_many["headers"] = _REQUEST_ID | {
        "Retry-After": {
            "description": "Seconds after which the same request would pass",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    }
    return {
        "401": _errors([errors.InvalidAuthToken]),
        "429": too_many,
        "500": _errors([errors.InternalError]),
    }


def _errors(kinds: Iterable[type[ServiceError]]) -> Document:
    codes = [kind.error_code for kind in kinds]
    body = _closed_object(error={"type": "string"}, error_code={"enum": codes})
    return _answer(", ".join(codes), _json(body))


def _answer(description: str, content: Document) -> Document:
    return {"description": description, "headers": _REQUEST_ID, "content": content}


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}


def _closed_object(**properties: Document) -> Document:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _server_timing() -> Document:
    return {
        "Server-Timing": {
            "description": "Milliseconds in queue, decode, network and encode",
            "required": True,
            "schema": {"type": "string"},
        }
    }
