"""Keys that may be used for some things alone."""

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.serving import MakeService, Service

REFUSED = "API Token not allowed to do this"
OF_SCOPE = {
    "upscale": [("POST", "/v1/upscale"), ("GET", "/v1/progress/any")],
    "jobs": [("GET", "/v1/jobs"), ("GET", "/v1/jobs/any"), ("DELETE", "/v1/jobs/any")],
    "credits": [("GET", "/v1/credits")],
}
CALLS = [(scope, *call) for scope, calls in OF_SCOPE.items() for call in calls]


def call(service: Service, method: str, path: str, key: str, **headers: str) -> requests.Response:
    return requests.request(
        method, service.url + path, headers={"X-API-KEY": key, **headers}, timeout=10
    )


@pytest.mark.parametrize(("scope", "method", "path"), CALLS)
def test_a_key_may_call_what_its_scopes_name_and_nothing_else(
    service: Service, scope: str, method: str, path: str
) -> None:
    name = f"{scope}{method}{path}".replace("/", "-")
    only = service.state.keys.create(f"only-{name}", scopes=frozenset({scope}))
    others = service.state.keys.create(f"not-{name}", scopes=frozenset(OF_SCOPE) - {scope})
    assert call(service, method, path, only).status_code not in (401, 403)
    refused = call(service, method, path, others)
    assert assert_error(refused, 401, "invalid_auth_token") == REFUSED


def test_a_key_without_scopes_may_call_everything(service: Service) -> None:
    for _, method, path in CALLS:
        assert call(service, method, path, service.key).status_code != 401


def test_every_key_may_list_the_models(service: Service) -> None:
    for scope in OF_SCOPE:
        key = service.state.keys.create(f"models-{scope}", scopes=frozenset({scope}))
        assert call(service, "GET", "/v1/models", key).status_code == 200


def test_what_becomes_a_job_needs_both_scopes(make_service: MakeService) -> None:
    service = make_service()
    headers = {"Prefer": "respond-async"}
    for scopes, status in (({"upscale"}, 401), ({"jobs"}, 401), ({"upscale", "jobs"}, 202)):
        key = service.state.keys.create("-".join(sorted(scopes)), scopes=frozenset(scopes))
        answer = service.upload(headers={"X-API-KEY": key, **headers})
        assert answer.status_code == status, scopes
    only = service.state.keys.find("upscale")
    assert only is not None
    assert service.state.jobs.list_page(only.id, limit=1).jobs == ()


def test_a_dry_run_makes_no_job_and_needs_no_scope_for_one(make_service: MakeService) -> None:
    service = make_service()
    key = service.state.keys.create("dry", scopes=frozenset({"upscale"}))
    headers = {"X-API-KEY": key, "Prefer": "respond-async"}
    for value, status in (("true", 200), ("false", 401), ("nonsense", 400)):
        answer = service.upload(headers=headers | {"X-Upscale-Dry-Run": value})
        assert answer.status_code == status, value


def test_a_refused_request_does_not_count_against_the_rate(make_service: MakeService) -> None:
    service = make_service(rate_per_s=0.001, rate_burst=1)
    key = service.state.keys.create("web", scopes=frozenset({"upscale"}))
    for _ in range(3):
        assert call(service, "GET", "/v1/credits", key).status_code == 401
    assert service.upload(headers={"X-API-KEY": key}).status_code == 200


def test_a_rotated_key_keeps_its_scopes(make_service: MakeService) -> None:
    service = make_service()
    former = service.state.keys.create("web", scopes=frozenset({"upscale"}))
    renewed = service.state.keys.rotate("web", keep_s=60)
    for key in (former, renewed):
        assert call(service, "GET", "/v1/credits", key).status_code == 401
