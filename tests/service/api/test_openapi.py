"""The document that FastAPI generates: complete, true, and readable by client generators."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import requests
from fastapi.routing import iter_route_contexts

from tests.service.api.serving import Service
from tests.service.api.test_errors import all_errors
from upscaled.api.routes import credits, jobs, models, ops, progress, results, upscale
from upscaled.errors import InternalError, ServiceError

Document = dict[str, Any]
NAMED = {"UpscaleUpload", "UpscaleByUrl", "Scale", "Upscaled", "Error", "ErrorCode"}


@pytest.fixture(scope="module")
def document(service: Service) -> Document:
    answer = service.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    described: Document = answer.json()
    return described


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def resolve(document: Document, schema: Document) -> Document:
    name = schema["$ref"].removeprefix("#/components/schemas/")
    named: Document = document["components"]["schemas"][name]
    return named


def test_every_endpoint_is_described_once_and_no_page(document: Document) -> None:
    """A HEAD answers as its GET does, and pages are for people: generators trip over both."""
    routers = [module.router for module in (upscale, jobs, credits, models, progress, results, ops)]
    endpoints = {
        (route.path, method.lower())
        for router in routers
        for route in iter_route_contexts(router.routes)
        if route.path != "/v1/upscale/"  # the same path in the contract
        and "/internal/" not in (route.path or "")  # between front ends
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {(path, method) for path, method, _ in operations(document)} == endpoints


def test_every_get_answers_head_too(service: Service, document: Document) -> None:
    for path, method, _ in operations(document):
        url = service.url + path.format(request_id="none", file_name="none", job_id="none")
        got, head = (requests.request(each, url, timeout=60) for each in ("GET", "HEAD"))
        assert head.status_code == got.status_code, path
        assert (head.status_code == 405) == (method == "post")


def test_schemas_have_the_names_that_clients_will_write(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert schemas.keys() >= NAMED
    assert not [name for name in schemas if "ValidationError" in name]


def test_no_body_is_a_choice_between_schemas(document: Document) -> None:
    """Generators make one class of a body: `anyOf` leaves them with a class without fields."""
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "anyOf" not in resolve(document, content["schema"])


def test_every_error_of_the_tree_is_described(document: Document) -> None:
    codes = set(document["components"]["schemas"]["ErrorCode"]["enum"])
    assert codes == {kind.error_code for kind in all_errors()}


def test_every_status_shows_the_codes_that_have_it(document: Document) -> None:
    statuses = {kind.error_code: str(kind.status) for kind in all_errors(ServiceError)}
    shown = set()
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/json", {})
            for code, example in content.get("examples", {}).items():
                assert example["value"]["error_code"] == code
                assert statuses[code] == status, path
                shown.add(code)
            if int(status) >= 400:
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}
    assert shown == set(statuses) - {"method_not_allowed"}


def test_answers_that_may_be_replayed_declare_the_replay_header(document: Document) -> None:
    responses = document["paths"]["/v1/upscale"]["post"]["responses"]
    replayed = [
        status for status, each in responses.items() if "Idempotent-Replayed" in each["headers"]
    ]
    assert replayed == ["200", "202"]


def test_only_readiness_answers_503(document: Document) -> None:
    paths = [path for path, _, each in operations(document) if "503" in each["responses"]]
    assert paths == ["/readyz"]
    assert InternalError.status == 500


def test_no_operation_has_status_422(document: Document) -> None:
    assert not [path for path, _, each in operations(document) if "422" in each["responses"]]


def test_operations_have_names_of_their_own(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_every_operation_declares_whether_it_requires_a_key(
    service: Service, document: Document
) -> None:
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-KEY")
    for path, method, operation in operations(document):
        url = service.url + path.format(request_id="none", file_name="none", job_id="none")
        answer = requests.request(method, url, timeout=60)
        assert (answer.status_code == 401) == bool(operation["security"]), path


@pytest.mark.parametrize("base", ["", "https://images.example.com"])
def test_the_server_is_the_public_one_where_it_is_set(make_service: Any, base: str) -> None:
    service = make_service(public_base_url=base)
    assert service.get("/openapi.json").json()["servers"] == [{"url": base or "/"}]


def test_the_second_document_has_an_upload_as_its_only_body(
    service: Service, document: Document
) -> None:
    upload_only = service.get("/openapi-upload.json").json()
    bodies = upload_only["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]
    assert list(bodies) == ["multipart/form-data"]
    both = document["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]
    assert bodies == {name: body for name, body in both.items() if name in bodies}
    assert upload_only["components"] == document["components"]


@pytest.mark.parametrize(
    ("body", "is_good"),
    [
        ({"image_url": "https://example.com/a.jpg", "scale": 2}, True),
        ({"image_url": "https://example.com/a.jpg", "scale": 4, "more": 1}, True),
        ({"image_url": "https://example.com/a.jpg", "scale": 3}, False),
        ({"scale": 2}, False),
        ({"image_url": "https://example.com/a.jpg"}, False),
    ],
)
def test_the_schema_of_the_json_body_is_the_contract_s(
    document: Document, body: object, is_good: bool
) -> None:
    content = document["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]
    schema = resolve(document, content["application/json"]["schema"])
    whole = schema | {"components": document["components"]}
    assert jsonschema_rs.is_valid(whole, body) is is_good
