"""Administration over HTTP: who may, what it changes, and that the contract is untouched by it."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.service.api.admin.calls import KEYS, SECRET, assert_refused, call, last_change, make_key
from tests.service.api.serving import MakeService, Service, serve
from tests.service.api.waiting import wait_until
from upscaled.api.admin.authentication import MAX_ADDRESSES, MAX_FAILURES, WINDOW_S, GuessLimiter
from upscaled.errors import RateLimitExceeded
from upscaled.state.usage import UsageRow

PATHS = (
    "/admin/v1/keys",
    "/admin/v1/usage",
    "/admin/v1/audit",
    "/admin/openapi.json",
    "/admin",
    "/admin/assets/admin.js",
)

ODD_CURSORS = ["x", "W10=", "WzBd", "WzEuNV0=", "WyIxIl0=", "WzFlMzBd", "%00", "%FF"]
"""Nothing, [], [0], [1.5], ["1"], [1e30], and bytes that are none of base64."""


def test_keys_have_pages_where_a_limit_is_given(service: Service) -> None:
    for name in ("page-1", "page-2"):
        make_key(service, name)
    everything = call(service, "GET", "/keys")
    assert "Link" not in everything.headers
    names = [key["name"] for key in everything.json()]
    full = call(service, "GET", f"/keys?limit={len(names)}")
    assert (len(full.json()), "Link" in full.headers) == (len(names), False)
    page = call(service, "GET", f"/keys?limit={len(names) - 1}")
    rest = call(service, "GET", page.links["next"]["url"].removeprefix("/admin/v1"))
    assert [key["name"] for key in page.json() + rest.json()] == names
    assert "Link" not in rest.headers
    assert call(service, "GET", "/keys?limit=1000").status_code == 200


def test_without_the_setting_administration_is_not_found(make_service: MakeService) -> None:
    service = make_service()
    for path in PATHS:
        answer = service.get(path, headers={"Authorization": f"Bearer {SECRET}"})
        assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found"), path


def test_with_a_port_of_its_own_it_is_not_at_the_service(make_service: MakeService) -> None:
    answer = make_service(admin_keys=KEYS, admin_port=1).get(PATHS[0])
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": f"Bearer {SECRET}x"},
        {"X-API-KEY": SECRET},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/keys"), ("POST", "/keys"), ("GET", "/no-such-path")]
)
def test_without_the_key_nothing_is_disclosed(
    make_service: MakeService, headers: dict[str, str], method: str, path: str
) -> None:
    service = make_service(admin_keys=KEYS)
    answer = call(service, method, path, headers=headers, data=b"{")
    assert (answer.status_code, answer.json()["error_code"]) == (401, "invalid_auth_token")


def test_a_key_of_the_contract_does_not_open_administration(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.key}", **service.headers}
    assert call(service, "GET", "/keys", headers=headers).status_code == 401
    assert service.get("/v1/credits", headers={"X-API-KEY": SECRET}).status_code == 401


def test_a_key_that_is_made_works_and_is_in_the_audit_log(service: Service) -> None:
    secret = make_key(service, "made", credits=7, rate=2.5, burst=9, expires_at="2099-01-31")
    assert service.upload(headers={"X-API-KEY": secret}).status_code == 200
    (key,) = [each for each in call(service, "GET", "/keys").json() if each["name"] == "made"]
    assert (key["state"], key["credits"], key["rate"], key["burst"]) == ("active", 7, 2.5, 9)
    assert key["expires_at"] == "2099-01-31T00:00:00Z"
    assert secret not in call(service, "GET", "/keys").text
    change = last_change(service)
    assert (change["actor"], change["action"], change["subject"]) == (
        "admin:ops",
        "keys create",
        "made",
    )
    assert change["details"]["credits"] == 7
    assert secret not in call(service, "GET", "/audit").text


def test_a_key_has_the_scopes_that_it_is_made_with(service: Service) -> None:
    secret = make_key(service, "narrow", scopes=["credits", "upscale"])
    assert last_change(service)["details"]["scopes"] == "upscale,credits"
    scopes = {each["name"]: each["scopes"] for each in call(service, "GET", "/keys").json()}
    assert (scopes["narrow"], scopes["test"]) == (["upscale", "credits"], None)
    for path, status in (("/v1/credits", 200), ("/v1/jobs", 401)):
        assert service.get(path, headers={"X-API-KEY": secret}).status_code == status


def test_a_key_is_renamed_and_its_rate_set(service: Service) -> None:
    make_key(service, "before", rate=1.0, burst=2)
    renamed = call(service, "PATCH", "/keys/before", json={"name": "after"}).json()
    assert (renamed["name"], renamed["rate"], renamed["burst"]) == ("after", 1.0, 2)
    slower = call(service, "PATCH", "/keys/after", json={"rate": 0.5}).json()
    assert (slower["name"], slower["rate"], slower["burst"]) == ("after", 0.5, 2)
    change = last_change(service)
    assert (change["action"], change["details"]) == ("keys set", {"rate": 0.5})


def test_scopes_and_end_of_a_key_are_changed_and_obeyed_at_once(service: Service) -> None:
    headers = {"X-API-KEY": make_key(service, "altered", rate=3.0)}
    change = {"scopes": ["credits"], "expires_at": "2099-01-31"}
    altered = call(service, "PATCH", "/keys/altered", json=change).json()
    assert (altered["scopes"], altered["expires_at"]) == (["credits"], "2099-01-31T00:00:00Z")
    assert service.get("/v1/jobs", headers=headers).status_code == 401
    assert last_change(service)["details"] == {
        "expires_at_s": int(datetime(2099, 1, 31, tzinfo=UTC).timestamp()),
        "scopes": "credits",
    }
    given_up = {"scopes": None, "expires_at": None, "rate": None}
    altered = call(service, "PATCH", "/keys/altered", json=given_up).json()
    assert (altered["scopes"], altered["expires_at"], altered["rate"]) == (None, None, None)
    assert service.get("/v1/jobs", headers=headers).status_code == 200
    assert last_change(service)["details"] == {
        "rate": "settings",
        "expires_at_s": "never",
        "scopes": "all",
    }


@pytest.mark.parametrize(
    ("change", "text"),
    [({"name": "test", "rate": 5.0}, "already active"), ({"name": "d", "rate": 0.0}, "rate of 0")],
)
def test_a_change_that_is_refused_changes_neither_name_nor_rate(
    service: Service, change: dict[str, Any], text: str
) -> None:
    name = f"kept-{change['name']}"
    make_key(service, name, rate=1.0)
    answer = call(service, "PATCH", f"/keys/{name}", json=change)
    assert (answer.status_code, text in answer.json()["error"]) == (400, True)
    assert call(service, "PATCH", f"/keys/{name}", json={}).json()["rate"] == 1.0


@pytest.mark.parametrize(("keep_hours", "status"), [(0, 401), (1, 200)])
def test_a_rotated_key_has_a_new_secret_and_the_old_one_for_a_while(
    service: Service, keep_hours: int, status: int
) -> None:
    old = make_key(service, f"rotated-{keep_hours}")
    path = f"/keys/rotated-{keep_hours}/rotate"
    new = call(service, "POST", path, json={"keep_hours": keep_hours}).json()["secret"]
    for secret, expected in ((new, 200), (old, status)):
        answer = service.get("/v1/credits", headers={"X-API-KEY": secret})
        assert answer.status_code == expected


def test_a_revoked_key_ends_at_once(service: Service) -> None:
    secret = make_key(service, "revoked")
    answer = call(service, "DELETE", "/keys/revoked")
    assert (answer.status_code, answer.content) == (204, b"")
    assert service.get("/v1/credits", headers={"X-API-KEY": secret}).status_code == 401
    assert call(service, "DELETE", "/keys/revoked").status_code == 404


def test_credits_are_added_taken_and_moved(service: Service) -> None:
    for name in ("giver", "taker"):
        make_key(service, name)
    body = {"credits": 10}
    assert call(service, "POST", "/keys/giver/credits/add", json=body).json() == {
        "name": "giver",
        "credits": 10,
    }
    taken = call(service, "POST", "/keys/giver/credits/take", json={"credits": 3})
    assert taken.json()["credits"] == 7
    moved = call(
        service, "POST", "/keys/giver/credits/transfer", json={"to": "taker", "credits": 7}
    )
    assert [each["credits"] for each in moved.json()] == [0, 7]
    assert last_change(service)["action"] == "credits transfer"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/keys", {"name": "test"}, 400, "already active"),
        ("POST", "/keys", {"name": "a b"}, 400, "no name for an API key"),
        ("POST", "/keys", {"name": "c", "credits": -1}, 400, "credits: "),
        ("POST", "/keys", {"name": "c", "burst": 0}, 400, "burst of 0"),
        ("POST", "/keys", {"name": "c", "expires_at": "2001-01-01"}, 400, "expired already"),
        ("POST", "/keys", {"name": "c", "extra": 1}, 400, "extra: "),
        ("POST", "/keys", {"name": "c", "scopes": ["all"]}, 400, "scopes.0: "),
        ("POST", "/keys", {"name": "c", "scopes": []}, 400, "scopes: "),
        ("POST", "/keys", None, 400, ""),
        ("GET", "/keys?limit=0", None, 400, "limit: "),
        ("GET", "/keys?limit=1001", None, 400, "limit: "),
        *(("GET", f"/keys?cursor={odd}", None, 400, "cursor") for odd in ODD_CURSORS),
        ("PATCH", "/keys/none", {"name": "d"}, 404, "no active API key named none"),
        ("PATCH", "/keys/none", {}, 404, "no active API key named none"),
        ("PATCH", "/keys/test", {"expires_at": "2001-01-01"}, 400, "expired already"),
        ("PATCH", "/keys/test", {"scopes": []}, 400, "scopes: "),
        ("POST", "/keys/test/rotate", {"keep_hours": 2161}, 400, "keep_hours: "),
        ("POST", "/keys/test/credits/add", {"credits": 0}, 400, "credits: "),
        ("POST", "/keys/test/credits/add", {"credits": "5"}, 400, "credits: "),
        ("POST", "/keys/test/credits/take", {"credits": 1}, 400, "credits"),
        ("POST", "/keys/test/credits/transfer", {"to": "x", "credits": 1}, 404, "named x"),
        ("GET", "/usage?since=yesterday", None, 400, "since: "),
        ("GET", "/usage?by=hour", None, 400, "by"),
        ("PUT", "/keys", {}, 405, ""),
        ("GET", "/none", None, 404, ""),
    ],
)
def test_refusals_have_the_contracts_form(
    service: Service, method: str, path: str, body: Any, status: int, text: str
) -> None:
    assert_refused(service, method, path, body, status, text)


def test_usage_is_reported_by_group_and_time(service: Service) -> None:
    key_id = service.state.keys.verify(make_key(service, "used"))
    assert key_id is not None
    at_s = int(datetime(2001, 2, 3, 12, tzinfo=UTC).timestamp())
    row = UsageRow(at_s, "upscale", key_id.id, 200, credits=1, output_px=2_000_000, device_s=0.5)
    service.state.usage.add([row])
    path = "/usage?since=2001-02-03&until=2001-02-04T00:00:00Z&by=key&by=day"
    (figures,) = call(service, "GET", path).json()
    assert (figures["day"], figures["key"], figures["images"]) == ("2001-02-03", "used", 1)
    assert (figures["output_mp"], figures["model"]) == (2.0, None)
    assert call(service, "GET", "/usage?since=2001-02-04&until=2001-02-05").json() == []


def test_an_upscale_shows_in_the_usage_of_its_key(service: Service) -> None:
    secret = make_key(service, "now")

    def images() -> int:
        rows = call(service, "GET", "/usage?by=key").json()
        return sum(row["images"] for row in rows if row["key"] == "now")

    assert service.upload(headers={"X-API-KEY": secret}).status_code == 200
    wait_until(lambda: images() == 1, 20)


def test_no_other_origin_may_call_it_from_a_browser(service: Service) -> None:
    headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {SECRET}"}
    assert "access-control-allow-origin" in service.get("/v1/credits", headers=headers).headers
    answer = call(service, "GET", "/keys", headers=headers)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    preflight = call(
        service, "OPTIONS", "/keys", headers={**headers, "Access-Control-Request-Method": "GET"}
    )
    assert not [name for name in preflight.headers if name.lower().startswith("access-control")]


def test_an_address_that_guesses_is_refused_also_with_the_right_key(
    make_service: MakeService,
) -> None:
    service = make_service(admin_keys=KEYS)
    wrong = {"Authorization": "Bearer wrong"}
    statuses = [
        call(service, "GET", "/keys", headers=wrong).status_code for _ in range(MAX_FAILURES)
    ]
    assert set(statuses) == {401}
    answer = call(service, "GET", "/keys")
    assert (answer.status_code, answer.json()["error_code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["Retry-After"]) <= WINDOW_S
    assert service.upload().status_code == 200


def test_requests_without_a_key_are_no_guesses(make_service: MakeService) -> None:
    service = make_service(admin_keys=KEYS)
    for headers in [{}, {"Authorization": "Bearer "}] * MAX_FAILURES:
        assert call(service, "GET", "/keys", headers=headers).status_code == 401
    assert call(service, "GET", "/keys").status_code == 200


def test_an_empty_key_is_refused_though_its_hash_is_set(make_service: MakeService) -> None:
    service = make_service(admin_keys=f"ops:{hashlib.sha256(b'').hexdigest()}")
    for headers in ({}, {"Authorization": "Bearer "}):
        assert call(service, "GET", "/keys", headers=headers).status_code == 401


def test_wrong_keys_are_counted_by_network_and_for_a_limited_time() -> None:
    now = [0.0]
    limiter = GuessLimiter(lambda: now[0])
    for _ in range(MAX_FAILURES):
        limiter.check("10.0.0.1")
        limiter.note_failure("10.0.0.1")
        limiter.note_failure("2001:db8::1")
    limiter.check("10.0.0.2")
    limiter.check("::ffff:10.0.0.2")  # as a proxy forwards it that listens on IPv6 for both
    limiter.check("2001:db8:0:1::1")
    for address in ("10.0.0.1", "::ffff:10.0.0.1", "2001:db8::2"):
        with pytest.raises(RateLimitExceeded) as refused:
            limiter.check(address)
        assert refused.value.retry_after_s == WINDOW_S
    now[0] = WINDOW_S - 0.5
    with pytest.raises(RateLimitExceeded):
        limiter.check("10.0.0.1")
    now[0] = WINDOW_S
    limiter.check("10.0.0.1")
    limiter.note_failure("10.0.0.1")
    limiter.check("10.0.0.1")


def test_the_memory_for_guesses_is_bounded() -> None:
    limiter = GuessLimiter()
    for number in range(MAX_ADDRESSES + 10):
        limiter.note_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limiter._failures) == MAX_ADDRESSES


def test_the_document_describes_administration_alone(service: Service) -> None:
    document = service.get("/admin/openapi.json").json()
    assert all(path.startswith("/admin/v1/") for path in document["paths"])
    assert not [path for path in service.get("/openapi.json").json()["paths"] if "admin" in path]
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len(operations) == 16
    for operation in operations:
        assert operation["security"] == [{"AdminKey": []}]
        assert "422" not in operation["responses"]
        assert {"400", "401", "429", "500"} <= set(operation["responses"])


@pytest.mark.parametrize("path", ["/admin", "/admin/"])
def test_the_page_and_what_it_loads_need_no_key(service: Service, path: str) -> None:
    page = service.get(path)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="(/admin/assets/[^"]+)"', page.text)
    assert len(loaded) >= 4
    for each in (*loaded, "/admin/assets/chart.js", "/admin/assets/table.js"):
        assert service.get(each).status_code == 200


@pytest.mark.parametrize("path", ["/keys", "/usage", "/audit"])
def test_each_answer_validates_against_the_openapi_document(service: Service, path: str) -> None:
    make_key(service, f"described-{path[1:]}")
    document = service.get("/admin/openapi.json").json()
    responses = document["paths"][f"/admin/v1{path}"]["get"]["responses"]
    schema = responses["200"]["content"]["application/json"]["schema"]
    answer = call(service, "GET", f"{path}?since=2001-01-01").json()
    assert answer
    jsonschema_rs.validate({**schema, "components": document["components"]}, answer)


def test_the_log_names_the_administrator_and_no_key(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    call(service, "GET", "/keys")
    wait_until(lambda: any("/admin/v1/keys" in each.getMessage() for each in caplog.records))
    lines = [each for each in caplog.records if "/admin/v1/keys" in each.getMessage()]
    assert {each.fields["key_name"] for each in lines} == {"admin:ops"}  # type: ignore[attr-defined]
    assert SECRET not in caplog.text


def test_every_hashed_key_of_several_opens_under_its_name(tmp_path: Path) -> None:
    other = f"{KEYS},second:{hashlib.sha256(b'two').hexdigest()}"
    with serve(tmp_path / "data", admin_keys=other) as service:
        headers = {"Authorization": "bearer two"}
        made = call(service, "POST", "/keys", headers=headers, json={"name": "by-second"})
        assert made.status_code == 201
        assert last_change(service)["actor"] == "admin:second"
