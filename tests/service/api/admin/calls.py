"""Calls of administration: as the administrator `ops`, at a service that knows one."""

import hashlib
from typing import Any

import requests

from tests.service.api.serving import Service

SECRET = "upa_for-tests-only"
KEYS = f"ops:{hashlib.sha256(SECRET.encode()).hexdigest()}"


def call(service: Service, method: str, path: str, **changes: Any) -> requests.Response:
    options = {"headers": {"Authorization": f"Bearer {SECRET}"}, "timeout": 30, **changes}
    return requests.request(method, f"{service.url}/admin/v1{path}", **options)


def make_key(service: Service, name: str, **values: Any) -> str:
    answer = call(service, "POST", "/keys", json={"name": name, **values})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["secret"])


def last_change(service: Service) -> dict[str, Any]:
    change: dict[str, Any] = call(service, "GET", "/audit").json()[-1]
    return change


def assert_refused(
    service: Service, method: str, path: str, body: Any, status: int, text: str
) -> None:
    """Assert that a call is refused with this status, in the contract's form, saying this text."""
    answer = call(service, method, path, json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "error_code"}
    assert text in answer.json()["error"]
