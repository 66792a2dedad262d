"""No path, no method and no header brings out a body of the framework's own."""

import httpx
import pytest
import requests
from fastapi import FastAPI
from starlette.middleware import Middleware

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.serving import Service
from upscaled.api.errors import EXCEPTION_HANDLERS, error_response
from upscaled.api.middleware import AccessRecordMiddleware
from upscaled.api.telemetry.access_log import Reporter
from upscaled.errors import ServiceError

PATHS = ["/v1/credits", "/public/result/x", "/healthz", "/readyz", "/metrics", "/docs", "/"]
PATHS += [
    "/openapi.json",
    "/llms.txt",
    "/assets/docs.js",
    "/assets/playground.js",
    "/assets/style.css",
]


def test_head_of_a_path_that_is_not_there_has_no_body(service: Service) -> None:
    answer = requests.head(f"{service.url}/nothing", timeout=60)
    assert (answer.status_code, answer.content) == (404, b"")
    assert answer.headers["Content-Type"] == "application/json"
    assert_request_id(answer)


@pytest.mark.parametrize("path", PATHS)
def test_other_paths_accept_only_get_and_head(service: Service, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = requests.request(method, service.url + path, timeout=60)
        assert_error(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


def test_a_405_names_the_methods_of_all_routes_of_its_path(service: Service) -> None:
    answer = requests.put(f"{service.url}/v1/jobs/x", timeout=60)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("path", PATHS)
def test_head_has_status_and_type_of_get(service: Service, path: str) -> None:
    head = requests.head(service.url + path, headers=service.headers, timeout=60)
    got = requests.get(service.url + path, headers=service.headers, timeout=60)
    assert head.content == b""
    assert head.status_code == got.status_code
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert_request_id(head)


def test_no_answer_names_the_software_of_the_server(service: Service) -> None:
    assert "server" not in service.get("/healthz").headers


def all_errors(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [kind] + [each for below in kind.__subclasses__() for each in all_errors(below)]


def test_every_error_has_a_status_of_the_contract() -> None:
    for kind in all_errors():
        assert kind.status in (400, 401, 403, 404, 405, 409, 429, 500), kind


def test_the_detail_is_never_sent() -> None:
    body = bytes(error_response(ServiceError(detail="at /etc/passwd")).body)
    assert body == b'{"error":"Internal service error","error_code":"internal_error"}'


async def test_a_parameter_that_fastapi_rejects_has_the_contracts_body() -> None:
    """No endpoint has such a parameter; one that gets one must not answer 422 with `detail`."""
    reporter = Reporter([])
    middleware = [Middleware(AccessRecordMiddleware, reporter=reporter)]
    app = FastAPI(exception_handlers=EXCEPTION_HANDLERS, middleware=middleware)

    @app.get("/")
    async def read(number: int) -> int:
        return number

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://upscale.example"
    ) as client:
        answer = await client.get("/", params={"number": "none"})
    await reporter.close()
    expected = {"error": "Invalid request body", "error_code": "invalid_request_body"}
    assert (answer.status_code, answer.json()) == (400, expected)
