import jsonschema_rs
import pytest
from starlette.routing import Route

from tests.service.api.serving import Service
from tests.service.api.test_errors import all_errors
from upscaled.api.openapi import build_openapi
from upscaled.config import load_settings
from upscaled.errors import InternalError, MethodNotAllowed, ServiceError

DOCUMENT = build_openapi(load_settings({}))


def test_it_is_served_as_it_is_built(service: Service) -> None:
    answer = service.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == build_openapi(service.settings)


def test_every_route_is_described_and_nothing_else(service: Service) -> None:
    routes = {
        (route.path, method.lower())
        for route in service.app.routes
        if isinstance(route, Route) and not route.path.startswith("/assets/")
        if route.path != "/v1/upscale/"  # the same path in the contract
        for method in route.methods or ()
    }
    described = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == routes


def test_every_error_of_the_tree_is_described() -> None:
    answers = [
        answer
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        for answer in operation["responses"].values()
    ]
    codes = {
        code
        for answer in answers
        for content in answer.get("content", {}).values()
        for code in content.get("schema", {})
        .get("properties", {})
        .get("error_code", {})
        .get("enum", [])
    }
    known = {kind.error_code for kind in all_errors()} - {MethodNotAllowed.error_code}
    assert codes == known


def test_every_status_says_the_codes_that_have_it() -> None:
    by_code = {kind.error_code: kind.status for kind in all_errors(ServiceError)}
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
                for code in schema.get("properties", {}).get("error_code", {}).get("enum", []):
                    is_unready = (path, code) == ("/readyz", InternalError.error_code)
                    assert by_code[code] == int(status) or is_unready


def test_operations_have_names_of_their_own() -> None:
    names = [
        operation["operationId"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        ({"image_url": "https://example.com/a.jpg", "scale": 2}, True),
        ({"image_url": "https://example.com/a.jpg", "scale": "4", "more": 1}, True),
        ({"image_url": "https://example.com/a.jpg", "scale": 3}, False),
        ({"scale": 2}, False),
        ({"image_url": "https://example.com/a.jpg"}, False),
    ],
)
def test_the_schema_of_the_json_body_is_the_contract_s(body: object, is_good: bool) -> None:
    content = DOCUMENT["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]
    assert jsonschema_rs.is_valid(content["application/json"]["schema"], body) is is_good
