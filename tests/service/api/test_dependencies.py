"""Who may send a request: the key's check, and `UPSCALED_AUTH=none`, where there need be no key."""

import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg
import pytest
import requests
import sqlalchemy as sa

from tests.databases import PostgreSQL
from tests.service.api.answers import assert_error
from tests.service.api.raw import Connection
from tests.service.api.serving import MakeService, Service, serve
from tests.service.api.waiting import wait_until
from upscaled.errors import InvalidAuthToken

REFUSED = "Host or Origin not allowed"


def get_credits(service: Service, **headers: str) -> requests.Response:
    return service.get("/v1/credits", headers=headers)


@contextmanager
def without_database(server: PostgreSQL, url: str) -> Iterator[None]:
    """Have the server refuse the database's connections, and end those that are open.

    One that was being opened is not listed among those yet, and would serve requests on: only when
    the database can be renamed it has none.
    """
    name = str(sa.make_url(url).database)
    server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    try:
        wait_until(lambda: _can_rename(server, name, f"{name}_away"))
        try:
            yield
        finally:
            server.run(f"ALTER DATABASE {name}_away RENAME TO {name}")
    finally:
        server.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def _can_rename(server: PostgreSQL, name: str, new_name: str) -> bool:
    """End a database's connections and rename it; return whether none was left to prevent it."""
    server.run(
        f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    with suppress(psycopg.errors.ObjectInUse):
        server.run(f"ALTER DATABASE {name} RENAME TO {new_name}")
        return True
    return False


@pytest.mark.parametrize("auth", ["key", "none"])
def test_a_request_waits_for_a_database_that_is_restarted(
    make_service: MakeService,
    postgresql: PostgreSQL,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    auth: str,
) -> None:
    service = make_service(database_url=server_url, auth=auth)
    headers = service.headers if auth == "key" else {}
    monkeypatch.setattr("upscaled.api.billing.RETRIES_AFTER_S", (0.1,) * 1000)
    monkeypatch.setattr("upscaled.api.dependencies._DATABASE_AWAY_S", 60)
    with ThreadPoolExecutor(1) as threads:
        with without_database(postgresql, server_url):
            answer = threads.submit(get_credits, service, **headers)
            time.sleep(0.3)
            assert not answer.done(), answer.result().text
        assert answer.result().status_code == 200


def test_a_request_does_not_wait_long_for_a_database_that_is_away(
    make_service: MakeService,
    postgresql: PostgreSQL,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = make_service(database_url=server_url)
    monkeypatch.setattr("upscaled.api.billing.RETRIES_AFTER_S", (0, 1000))
    with without_database(postgresql, server_url):
        assert_error(get_credits(service, **service.headers), 500, "internal_error")


@pytest.mark.parametrize("key", [{}, {"X-API-KEY": ""}, {"X-API-KEY": "any"}])
def test_requests_without_a_key_and_with_any_key_are_accepted(
    make_service: MakeService, key: dict[str, str]
) -> None:
    service = make_service(auth="none")
    answer = service.upload(headers=key)
    assert list(answer.json()) == ["result_url"]
    assert requests.get(answer.json()["result_url"], timeout=60).status_code == 200


def test_a_missing_or_local_key_is_refused_where_keys_are_required(
    make_service: MakeService,
) -> None:
    service = make_service()
    assert_error(service.upload(headers={}), 401, "invalid_auth_token")
    service.state.keys.make_local()  # of a start without keys before
    assert_error(service.upload(headers={}), 401, "invalid_auth_token")
    assert_error(service.upload(headers={"X-API-KEY": "local"}), 401, "invalid_auth_token")


@pytest.mark.parametrize("auth", ["key", "none"])
def test_of_several_keys_none_counts_unless_they_are_one(
    make_service: MakeService, caplog: pytest.LogCaptureFixture, auth: str
) -> None:
    caplog.set_level(logging.INFO, "upscaled.api.telemetry.access_log")
    service = make_service(auth=auth)
    other = service.state.keys.create("other")
    for keys in [(service.key, other), (other, service.key), (service.key, ""), (other, other)]:
        with Connection(service) as connection:
            lines = "".join(f"X-API-KEY: {key}\r\n" for key in keys)
            head = f"GET /v1/credits HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
            connection.send(head.encode())
            answer = connection.receive()
            if auth == "key" and len(set(keys)) > 1:
                answer.assert_error(401, "invalid_auth_token")
            else:
                assert answer.status == 200
    service.app.state.context.reporter.flush()
    fields = [vars(each)["fields"] for each in caplog.records if "fields" in vars(each)]
    names = [each.get("key_name") for each in fields]
    assert names == [*["local" if auth == "none" else None] * 3, "other"]


def test_a_valid_key_counts_as_itself_and_the_others_as_local(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "upscaled.api.telemetry.access_log")
    service = make_service(auth="none")
    for headers in (service.headers, {}, {"X-API-KEY": "any"}):
        assert get_credits(service, **headers).status_code == 200
    service.app.state.context.reporter.flush()
    names = [vars(each)["fields"]["key_name"] for each in caplog.records if "fields" in vars(each)]
    assert names == ["test", "local", "local"]


def test_rate_and_credits_are_those_of_local(make_service: MakeService) -> None:
    service = make_service(auth="none", metering=True, rate_per_s=0.001, rate_burst=3)
    assert get_credits(service).json()["credits_remaining"] == 0
    assert_error(service.upload(headers={}), 403, "insufficient_api_credits")
    service.state.credits.add("local", 1)
    assert service.upload(headers={}).status_code == 200
    assert service.state.credits.show("local") == 0
    assert_error(get_credits(service), 429, "rate_limit_exceeded")
    assert get_credits(service, **service.headers).status_code == 200


def test_jobs_and_idempotency_keys_are_those_of_local(make_service: MakeService) -> None:
    service = make_service(auth="none")
    headers = {"Prefer": "respond-async", "Idempotency-Key": "one"}
    first, again = service.upload(headers=headers), service.upload(headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Location"] == first.headers["Location"]
    (job,) = service.get("/v1/jobs").json()["jobs"]
    assert first.headers["Location"].endswith(job["id"])
    assert service.get("/v1/jobs", headers=service.headers).json()["jobs"] == []


def test_a_revoked_local_key_lets_nothing_in_until_the_next_start(
    make_service: MakeService,
) -> None:
    service = make_service(auth="none")
    service.state.keys.revoke("local")
    assert_error(get_credits(service), 401, "invalid_auth_token")
    assert get_credits(service, **service.headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("page.localhost:1", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("upscale.lan", True),
        ("UPSCALE.LAN:8000", True),
        ("[fd00::5]:8000", True),
        ("upscale.example.com", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("upscale.lan.evil.example:8000", False),
        ("10.0.0.5", False),
        ("[::2]", False),
        ("xlocalhost", False),
        ("", False),
    ],
)
def test_a_foreign_host_is_refused(service_of_lan: Service, host: str, is_own: bool) -> None:
    answer = get_credits(service_of_lan, Host=host)
    if is_own:
        assert answer.status_code == 200
    else:
        assert_error(answer, 401, "invalid_auth_token")
        assert answer.json()["error"] == REFUSED


@pytest.fixture(scope="module")
def service_of_lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(
        tmp_path_factory.mktemp("lan") / "data",
        auth="none",
        allowed_hosts="upscale.lan,fd00::5",
        public_base_url="https://upscale.example.com",
        cors_origins="https://app.example.com,*",
    ) as service:
        yield service


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("localhost:8000", "http://localhost:8000", True),
        ("localhost:8000", "HTTP://LOCALHOST:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("upscale.lan", "http://upscale.lan:80", True),
        ("upscale.lan:443", "https://upscale.lan", True),
        ("upscale.lan", "https://upscale.lan", True),  # behind a proxy with TLS
        ("localhost:8000", "https://app.example.com", True),
        ("localhost:8000", "http://localhost:3000", False),
        ("localhost:8000", "http://localhost", False),
        ("localhost:8000", "https://evil.example", False),
        ("localhost:8000", "null", False),
        ("localhost:8000", "", False),
        ("localhost:8000", "http://localhost:8000.evil.example", False),
        ("localhost", "http://127.0.0.1", False),
        ("localhost", "http://[", False),
    ],
)
def test_a_foreign_origin_is_refused(
    service_of_lan: Service, host: str, origin: str, is_own: bool
) -> None:
    answer = get_credits(service_of_lan, Host=host, Origin=origin)
    assert answer.status_code == (200 if is_own else 401)
    assert is_own or answer.json()["error"] == REFUSED


@pytest.fixture(scope="module")
def service_of_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder, url = tmp_path_factory.mktemp("proxy"), "http://upscale.lan:8080/tools"
    with serve(folder / "data", auth="none", public_base_url=url) as service:
        yield service


@pytest.mark.parametrize(
    ("host", "origin", "is_own"),
    [
        ("upscale.lan", "http://upscale.lan:8080", True),
        ("upscale.lan", "http://UPSCALE.lan:8080", True),
        ("upscale.lan:8080", "http://upscale.lan:8080", True),
        ("upscale.lan", "http://upscale.lan:8081", False),
        ("upscale.lan", "https://upscale.lan:8080", False),
        ("upscale.lan", "http://evil.example:8080", False),
        ("evil.example", "http://upscale.lan:8080", False),
        ("evil.example", "http://evil.example", False),
        ("upscale.lan", "null", False),
    ],
)
def test_the_port_that_a_proxy_removes_from_the_host_is_that_of_the_public_url(
    service_of_proxy: Service, host: str, origin: str, is_own: bool
) -> None:
    answer = get_credits(service_of_proxy, Host=host, Origin=origin)
    assert answer.status_code == (200 if is_own else 401)


def test_without_a_public_url_no_port_is_guessed(make_service: MakeService) -> None:
    service = make_service(auth="none", allowed_hosts="upscale.lan")
    for origin in ("http://upscale.lan:8080", "null", ""):
        assert get_credits(service, Host="upscale.lan", Origin=origin).status_code == 401


def test_a_valid_key_passes_from_everywhere(service_of_lan: Service) -> None:
    headers = {"Host": "evil.example", "Origin": "https://evil.example"}
    assert get_credits(service_of_lan, **service_of_lan.headers, **headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/upscale"),
        ("GET", "/v1/models"),
        ("GET", "/v1/jobs"),
        ("DELETE", "/v1/jobs/any"),
        ("GET", "/v1/progress/any"),
    ],
)
def test_a_foreign_page_is_refused_on_every_path_that_needs_a_key(
    service_of_lan: Service, method: str, path: str
) -> None:
    answer = requests.request(
        method, service_of_lan.url + path, headers={"Host": "evil.example"}, timeout=5
    )
    assert_error(answer, 401, "invalid_auth_token")


def test_paths_without_a_key_answer_under_every_host_name(service_of_lan: Service) -> None:
    for path in ("/healthz", "/readyz", "/"):
        assert service_of_lan.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200


def test_a_request_of_http_1_0_without_a_host_is_refused(service_of_lan: Service) -> None:
    with Connection(service_of_lan) as connection:
        connection.send(b"GET /v1/credits HTTP/1.0\r\n\r\n")
        answer = connection.receive()
    answer.assert_error(401, "invalid_auth_token")
    assert json.loads(answer.body)["error"] == REFUSED


def test_any_host_name_is_accepted_where_keys_are_required(make_service: MakeService) -> None:
    service = make_service(allowed_hosts="upscale.lan")
    assert get_credits(service, **service.headers, Host="evil.example").status_code == 200
    refused = get_credits(service, Host="evil.example")
    assert refused.json()["error"] == InvalidAuthToken.default_text


def test_the_document_requires_no_key(make_service: MakeService) -> None:
    for auth, count in (("none", 0), ("key", 1)):
        document = make_service(auth=auth).get("/openapi.json").json()
        assert len(document["paths"]["/v1/upscale"]["post"]["security"]) == count
