# ruff: noqa: E501 - a row of the table is a line
"""Rows of the other endpoints: credits, health, metrics, documentation."""

from tests.conformance.rows.errors import method_row
from tests.conformance.table import (
    AT_ONCE_S,
    SOURCE,
    Plain,
    Refused,
    Request,
    Row,
    Upscaled,
    form,
    get,
    json_body,
)

CREDITS = "GET /v1/credits: 401 as above"
MODELS = (
    "extensions: opt-in only, as request headers X-Upscale-*; GET /v1/models: what may be named"
)
HEALTH = (
    "GET /healthz, GET /readyz: live while the process answers; ready when a request would succeed"
)
METRICS = "GET /metrics: Prometheus text"
DOCS = "GET /docs, /openapi.json: work with the network unplugged: no CDN"
HOME = "GET /: the playground page"


def open_to_all(path: str) -> Request:
    return get(path).without_key()


AROUND = (
    Row("credits without a key are 401", CREDITS, open_to_all("/v1/credits"), Refused("invalid_auth_token")),
    Row("models without a key are 401", MODELS, open_to_all("/v1/models"), Refused("invalid_auth_token"), "ours"),
    Row("models are listed as JSON", MODELS, get("/v1/models"), Plain(200, "application/json", ('"models"', '"auto"', '"upscaled-x4"')), "ours"),
    Row("the model that auto is may be named", MODELS, form().plus(("X-Upscale-Model", "auto")), Upscaled(), "ours"),
    Row("a model may be named in a form", MODELS, form("photo", "4").plus(("X-Upscale-Model", "upscaled-x4")), Upscaled(4), "ours"),
    Row("a model may be named beside a JSON body", MODELS, json_body({"image_url": SOURCE, "scale": 2}).plus(("x-upscale-model", "upscaled-x2")), Upscaled(), "ours"),
    *(
        Row(f"a model {why} is refused", MODELS, form().plus(*(("X-Upscale-Model", name) for name in names)), Refused("invalid_parameter", ("x-upscale-model",), within_s=AT_ONCE_S), "ours")
        for why, names in (
            ("that is not here", ("no-such-model",)),
            ("of no characters", ("",)),
            ("of odd characters", ("../models",)),
            ("of 65 characters", ("m" * 65,)),
            ("named twice", ("upscaled-x4", "upscaled-x4")),
        )
    ),
    Row("healthz answers without a key", HEALTH, open_to_all("/healthz"), Plain(), "ours"),
    Row("readyz answers without a key", HEALTH, open_to_all("/readyz"), Plain(), "ours"),
    Row("metrics are Prometheus text", METRICS, open_to_all("/metrics"), Plain(200, "text/plain", ("# TYPE ", "# HELP ")), "ours"),
    Row("the description is JSON and names the endpoint", DOCS, open_to_all("/openapi.json"), Plain(200, "application/json", ('"/v1/upscale"',)), "ours"),
    Row("the documentation is a page", DOCS, open_to_all("/docs"), Plain(200, "text/html", ("<html",)), "ours"),
    Row("the playground is a page", HOME, open_to_all("/"), Plain(200, "text/html", ("<html",)), "ours"),
    method_row("POST", "/v1/credits", "GET"),
    method_row("POST", "/v1/models", "GET"),
)  # fmt: skip
