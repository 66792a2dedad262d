"""Webhooks over HTTP: addresses of keys, trials of them, and what was or will be sent."""

from typing import Any

import jsonschema_rs
import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from tests.service.api.admin.calls import assert_refused, call, last_change, make_key
from tests.service.api.receiver import receive, status
from tests.service.api.serving import Service
from upscaled.state.job_rows import JobOrder
from upscaled.state.schema import WEBHOOK_DELIVERIES

GONE_URL = "http://127.0.0.1:9/"


def end_a_job(service: Service, name: str) -> str:
    """End a job of a key whose webhook is answered 410; return its id."""
    state = service.state
    key = state.keys.find(name)
    assert key is not None
    state.webhooks.configure(name, GONE_URL)
    order = JobOrder("source", None, 4, "")
    job = state.jobs.submit(key.id, order, is_metered=False, max_unfinished=9).job
    state.jobs.cancel(key.id, job.id)
    gone = sa.update(WEBHOOK_DELIVERIES).where(WEBHOOK_DELIVERIES.c.job_id == job.id)
    with state.database.write() as connection:
        connection.execute(
            gone.values(state="gone", lease_id=None, attempts=0, outcome="status 410")
        )
    return job.id


def test_the_address_of_a_keys_webhooks_is_set_and_removed(service: Service) -> None:
    make_key(service, "hooked")
    path, url = "/keys/hooked/webhook", "https://a.example/hook?token=x"
    bare = {"name": "hooked", "url": None, "has_secret": False, "is_disabled": False}
    assert call(service, "GET", path).json() == bare
    assert call(service, "DELETE", path).status_code == 204
    assert call(service, "GET", path).json() == bare
    made = call(service, "PUT", path, json={"url": url}).json()
    assert (made["name"], made["url"], made["secret"][:6]) == ("hooked", url, "whsec_")
    change = last_change(service)
    assert (change["actor"], change["action"]) == ("admin:ops", "keys webhook")
    assert change["details"] == {"site": "https://a.example", "secret": "new"}
    shown = call(service, "GET", path)
    assert (shown.json()["url"], shown.json()["has_secret"]) == (url, True)
    assert made["secret"] not in shown.text
    renewed = call(service, "PUT", path, json={"url": url, "new_secret": True}).json()
    assert renewed["secret"] != made["secret"]
    assert call(service, "DELETE", path).status_code == 204
    again = call(service, "PUT", path, json={"url": url}).json()
    assert again["secret"] == renewed["secret"]


def test_webhooks_have_pages_that_a_newer_one_does_not_shift(service: Service) -> None:
    make_key(service, "paged")
    for _ in range(2):
        end_a_job(service, "paged")
    before = [row["job_id"] for row in call(service, "GET", "/webhooks?state=gone").json()]
    assert "Link" not in call(service, "GET", f"/webhooks?state=gone&limit={len(before)}").headers
    page = call(service, "GET", f"/webhooks?state=gone&limit={len(before) - 1}")
    newest = end_a_job(service, "paged")
    rest = call(service, "GET", page.links["next"]["url"].removeprefix("/admin/v1"))
    assert [row["job_id"] for row in page.json() + rest.json()] == before
    assert "Link" not in rest.headers
    assert call(service, "GET", "/webhooks").json()[0]["job_id"] == newest


def test_a_webhook_is_tried_out(service: Service) -> None:
    make_key(service, "tried")
    with receive(status(204), status(410)) as receiver:
        set_to = {"url": receiver.url}
        secret = call(service, "PUT", "/keys/tried/webhook", json=set_to).json()["secret"]
        tried = [call(service, "POST", "/keys/tried/webhook/test").json() for _ in range(2)]
        (first, _) = receiver.calls
    outcomes = [("status 204", True), ("status 410", False)]
    assert [(each["outcome"], each["is_delivered"]) for each in tried] == outcomes
    assert Webhook(secret).verify(first.body, first.headers)["type"] == "webhook.test"
    assert not call(service, "GET", "/keys/tried/webhook").json()["is_disabled"]


def test_webhooks_are_listed_by_state_and_sent_again(service: Service) -> None:
    make_key(service, "sent")
    older, newer = (end_a_job(service, "sent") for _ in range(2))

    def listed(query: str) -> list[dict[str, Any]]:
        rows = call(service, "GET", f"/webhooks?{query}").json()
        return [row for row in rows if row["key"] == "sent"]

    assert [row["job_id"] for row in listed("state=gone")] == [newer, older]
    (row,) = listed("state=gone&limit=1")
    assert row == {
        "job_id": newer,
        "key": "sent",
        "state": "gone",
        "attempts": 0,
        "next_at": None,
        "url": GONE_URL,
        "outcome": "status 410",
    }
    service.state.webhooks.configure("sent", GONE_URL)
    assert call(service, "POST", f"/webhooks/{older}/retry").status_code == 204
    change = last_change(service)
    assert (change["action"], change["subject"]) == ("webhooks retry", older)
    assert [row["job_id"] for row in listed("state=gone")] == [newer]
    assert [row["job_id"] for row in listed("")] == [newer, older]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("PUT", "/keys/test/webhook", {}, 400, "url: "),
        ("PUT", "/keys/test/webhook", {"url": "ftp://a.example/"}, 400, "url: "),
        ("PUT", "/keys/test/webhook", {"url": "a" * 8193}, 400, "url: "),
        ("PUT", "/keys/none/webhook", {"url": None}, 404, "no active API key named none"),
        ("GET", "/keys/none/webhook", None, 404, "no active API key named none"),
        ("DELETE", "/keys/none/webhook", None, 404, "no active API key named none"),
        ("POST", "/keys/test/webhook/test", None, 404, "test has no webhook"),
        ("POST", "/webhooks/no-such-job/retry", None, 404, "no webhook of a job no-such-job"),
        ("GET", "/webhooks?state=sent", None, 400, "state: "),
        ("GET", "/webhooks?limit=0", None, 400, "limit: "),
        ("GET", "/webhooks?limit=1001", None, 400, "limit: "),
        ("GET", "/webhooks?cursor=WzFd", None, 400, "cursor"),
    ],
)
def test_refusals_have_the_contracts_form(
    service: Service, method: str, path: str, body: Any, status: int, text: str
) -> None:
    assert_refused(service, method, path, body, status, text)


def test_the_list_validates_against_the_openapi_document(service: Service) -> None:
    make_key(service, "described")
    end_a_job(service, "described")
    document = service.get("/admin/openapi.json").json()
    responses = document["paths"]["/admin/v1/webhooks"]["get"]["responses"]
    schema = responses["200"]["content"]["application/json"]["schema"]
    answer = call(service, "GET", "/webhooks").json()
    assert answer
    jsonschema_rs.validate({**schema, "components": document["components"]}, answer)
