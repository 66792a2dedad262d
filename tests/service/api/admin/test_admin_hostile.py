"""Administration under attack, on PostgreSQL: odd values, and changes of one key at one moment."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.service.api.admin.calls import KEYS, SECRET, call, make_key
from tests.service.api.serving import MakeService

LAST = "9999-12-31T23:59:59"
ODD_CALLS: list[tuple[str, str, Any]] = [
    ("GET", "/keys/%00/webhook", None),
    ("GET", "/keys/%FF/webhook", None),
    ("PUT", "/keys/%00/webhook", b'{"url": null}'),
    ("PUT", "/keys/test/webhook", b'{"url": "http://a.example/\\u0000"}'),
    ("PUT", "/keys/test/webhook", b'{"url": "http://\\ud800.example/"}'),
    ("DELETE", "/keys/a%00b", None),
    ("PATCH", "/keys/%00", b'{"rate": 1}'),
    ("PATCH", "/keys/test", b'{"rate": NaN}'),
    ("PATCH", "/keys/test", b'{"rate": 1e999}'),
    ("PATCH", "/keys/test", b'{"burst": 99999999999999999999}'),
    ("PATCH", "/keys/test", f'{{"expires_at": "{LAST}-12:00"}}'.encode()),
    ("PATCH", "/keys/test", b'{"expires_at": 1e300}'),
    ("PATCH", "/keys/test", b'{"name": "\\u0000"}'),
    ("PATCH", "/keys/test", b'{"\\ud800": 1}'),
    ("POST", "/keys", b'{"name": "late", "expires_at": "%b-12:00"}' % LAST.encode()),
    ("POST", "/keys", b'{"name": "\\ud800"}'),
    ("POST", "/keys", b"[" * 100_000),
    ("POST", "/keys", b'{"name": "rich", "credits": %b}' % (b"9" * 5_000)),
    ("POST", "/keys/test/rotate", b'{"keep_hours": 1e99}'),
    ("POST", "/keys/test/credits/transfer", b'{"to": "\\u0000", "credits": 1}'),
    ("POST", "/keys/test/credits/transfer", b'{"to": "\\ud800", "credits": 1}'),
    ("POST", "/keys/%00/webhook/test", None),
    ("POST", "/webhooks/%00/retry", None),
    ("POST", "/webhooks/%FF/retry", None),
    ("GET", "/webhooks?limit=99999999999999999999999", None),
    ("GET", "/webhooks?state=%00", None),
    ("GET", "/usage?since=1e999", None),
    ("GET", "/usage?by=key&by=%00", None),
    ("GET", "/audit?until=%00", None),
]


def test_no_odd_value_is_answered_500(make_service: MakeService, server_url: str) -> None:
    service = make_service(admin_keys=KEYS, database_url=server_url)
    make_key(service, "test-other")
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    for method, path, body in ODD_CALLS:
        answer = call(service, method, path, data=body, headers=headers)
        assert 400 <= answer.status_code < 500, (method, path, body, answer.text)
        assert set(answer.json()) == {"error", "error_code"}, (method, path)
    for path in ("since=0001-01-01", f"until={LAST}-12:00", "since=2999-01-01"):
        for report in ("usage", "audit"):
            assert call(service, "GET", f"/{report}?{path}").status_code == 200
    (one, two) = call(service, "GET", "/keys").json()
    assert [each["name"] for each in (one, two)] == ["test", "test-other"]
    assert (one["rate"], one["expires_at"]) == (None, None)


def test_simultaneous_changes_of_one_key_are_made_in_turn(
    make_service: MakeService, server_url: str
) -> None:
    service = make_service(admin_keys=KEYS, database_url=server_url)
    for number in range(4):
        name = f"busy-{number}"
        secret = make_key(service, name)
        changes: list[tuple[str, str, Any]] = [
            ("POST", f"/keys/{name}/rotate", {"keep_hours": 1}),
            ("PUT", f"/keys/{name}/webhook", {"url": "http://a.example/"}),
            ("PATCH", f"/keys/{name}", {"rate": 2.0, "scopes": ["jobs"]}),
            ("POST", f"/keys/{name}/credits/add", {"credits": 1}),
            ("DELETE", f"/keys/{name}", None),
        ] * 2

        def send(change: tuple[str, str, Any]) -> int:
            method, path, body = change
            return call(service, method, path, json=body).status_code

        with ThreadPoolExecutor(len(changes)) as threads:
            statuses = list(threads.map(send, changes))
        assert set(statuses) <= {200, 204, 404}, statuses
        assert statuses.count(204) == 1
        assert service.get("/v1/credits", headers={"X-API-KEY": secret}).status_code == 401
        keys = {each["name"]: each for each in call(service, "GET", "/keys").json()}
        assert keys[name]["state"] == "revoked"
        done = [each for each in call(service, "GET", "/audit").json() if each["subject"] == name]
        assert len(done) == 1 + sum(status < 300 for status in statuses)
        assert (done[0]["action"], done[-1]["action"]) == ("keys create", "keys revoke")
