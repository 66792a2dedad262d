# ruff: noqa: E501 - a row of the table is a line
"""What stands around the endpoint: credits, health, metrics, documentation."""

from tests.conformance.rows.errors import method_row
from tests.conformance.table import Plain, Refused, Request, Row, get

CREDITS = "GET /v1/credits: 401 as above"
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
    Row("healthz answers without a key", HEALTH, open_to_all("/healthz"), Plain(), "ours"),
    Row("readyz answers without a key", HEALTH, open_to_all("/readyz"), Plain(), "ours"),
    Row("metrics are Prometheus text", METRICS, open_to_all("/metrics"), Plain(200, "text/plain", ("# TYPE ", "# HELP ")), "ours"),
    Row("the description is JSON and names the endpoint", DOCS, open_to_all("/openapi.json"), Plain(200, "application/json", ('"/v1/upscale"',)), "ours"),
    Row("the documentation is a page", DOCS, open_to_all("/docs"), Plain(200, "text/html", ("<html",)), "ours"),
    Row("the playground is a page", HOME, open_to_all("/"), Plain(200, "text/html", ("<html",)), "ours"),
    method_row("POST", "/v1/credits", "GET"),
)  # fmt: skip
