"""Check what all error responses of the contract have in common."""

import re

import requests


def assert_error(answer: requests.Response, status: int, error_code: str) -> str:
    """Check status, code, media type, the two keys and the request id; return the text."""
    assert (answer.status_code, answer.text[:500]) == (status, answer.text[:500])
    body = answer.json()
    assert set(body) == {"error", "error_code"}, body
    assert body["error_code"] == error_code, body
    assert isinstance(body["error"], str)
    assert body["error"]
    assert answer.headers["Content-Type"] == "application/json"
    assert_request_id(answer)
    return str(body["error"])


def assert_request_id(answer: requests.Response) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["X-Request-Id"])
