"""The page of administration in Chromium: nothing without the key, all of it with the key."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.browser.conftest import DESKTOP, PHONE
from tests.listening import free_port
from tests.service.api.serving import Service, serve
from upscaled.state.job_rows import JobOrder
from upscaled.state.usage import UsageRow
from upscaled.state.usage_days import DAY_S

pytestmark = pytest.mark.slow  # a browser is started

SECRET = "upa_for-tests-only"
OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two keys, one of which has made three images today and one yesterday."""
    keys = f"ops:{hashlib.sha256(SECRET.encode()).hexdigest()}"
    data_dir: Path = tmp_path_factory.mktemp("admin") / "data"
    with serve(data_dir, admin_keys=keys) as running:
        key = running.state.keys.verify(running.key)
        assert key is not None
        running.state.keys.create("idle")
        now_s = int(time.time())
        image = {"model": "upscaled-x4", "output_px": 2_000_000, "device_s": 0.5, "credits": 1}
        for at_s in (now_s, now_s, now_s, now_s - DAY_S):
            running.state.usage.add([UsageRow(at_s, "upscale", key.id, 200, **image)])  # type: ignore[arg-type]
        yield running


@pytest.fixture
def open_admin(chromium: Any, service: Service) -> Iterator[OpenPage]:
    """Open the page, and enter `secret` unless it is empty; its console must have no message."""
    contexts, said = [], []

    def open_one(secret: str = SECRET, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{service.url}/admin/")
        if secret:
            page.fill("#secret", secret)
            page.click("#enter button")
        return page

    yield open_one
    for context in contexts:
        context.close()
    # Chromium itself reports answers that are errors.
    assert [text for text in said if not re.search(r"status of (40[01]|503)", text)] == []


def row_of(page: Any, table: str, name: str) -> list[str]:
    row = page.locator(f"#{table} tr", has=page.locator("td", has_text=re.compile(f"^{name}$")))
    texts: list[str] = row.first.locator("td").all_inner_texts()
    return texts


def answer_dialog(page: Any, value: str = "") -> None:
    if value:
        page.fill("#ask-value", value)
    page.click("#ask-yes")


def test_a_wrong_key_shows_no_data_and_is_not_stored(open_admin: OpenPage) -> None:
    page = open_admin("wrong")
    page.get_by_text("An administrator's key is needed").wait_for()
    assert not page.locator("#content").is_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_wrong_key_counts_as_one_guess(open_admin: OpenPage) -> None:
    page = open_admin("")
    calls: list[str] = []
    page.on("request", lambda request: calls.append(request.url))
    page.fill("#secret", "wrong")
    page.click("#enter button")
    page.get_by_text("An administrator's key is needed").wait_for()
    assert len([url for url in calls if "/admin/v1/" in url]) == 1


def test_figures_are_shown_by_day_key_and_model(open_admin: OpenPage) -> None:
    from playwright.sync_api import expect

    page = open_admin()
    page.locator("#plot svg").wait_for()
    titles = page.locator("#plot title").all_text_contents()
    assert len(titles) == 30
    assert [title.split(": ")[1] for title in titles[-2:]] == ["1", "3"]
    assert row_of(page, "by-key", "test")[1:3] == ["4", "4"]
    assert row_of(page, "by-model", "upscaled-x4")[8:] == ["8", "2"]
    page.select_option("#period", "7")
    expect(page.locator("#plot title")).to_have_count(7)
    page.select_option("#figure", "output_mp")
    assert page.locator("#plot title").last.text_content().endswith(": 6")
    assert "megapixels made by day" in page.locator("#plot svg").get_attribute("aria-label")


def test_a_key_that_is_made_here_works(open_admin: OpenPage, service: Service) -> None:
    page = open_admin()
    page.fill("#create [name=name]", "new.key")
    page.fill("#create [name=credits]", "5")
    page.click("#create button")
    page.locator("#made").wait_for()
    headers = {"X-API-KEY": page.inner_text("#made-secret")}
    answer = requests.get(f"{service.url}/v1/credits", headers=headers, timeout=60)
    assert answer.status_code == 200
    assert row_of(page, "keys", "new.key")[1:3] == ["active", "5"]
    page.locator("#audit td", has_text="admin:ops").first.wait_for()


def test_credits_names_and_ends_are_changed_by_dialogs(
    open_admin: OpenPage, service: Service
) -> None:
    service.state.keys.create("changing", credits=1)
    page = open_admin()
    page.get_by_role("button", name="Add credits: changing").click()
    answer_dialog(page, "9")
    page.locator("#audit td", has_text="credits 9").wait_for()
    assert service.state.credits.show("changing") == 10
    page.get_by_role("button", name="Rename: changing").click()
    answer_dialog(page, "changed")
    page.get_by_role("button", name="Revoke: changed").click()
    page.click("#ask button[value=no]")
    assert "changed" in service.state.keys.names()
    page.get_by_role("button", name="Revoke: changed").click()
    answer_dialog(page)
    page.get_by_role("button", name="Revoke: changed").wait_for(state="detached")
    assert "changed" not in service.state.keys.names()


def test_webhooks_are_addressed_and_sent_again(open_admin: OpenPage, service: Service) -> None:
    from playwright.sync_api import expect

    state = service.state
    state.keys.create("hooked")
    page = open_admin()
    page.get_by_role("button", name="Webhook: hooked").click()
    answer_dialog(page, f"http://127.0.0.1:{free_port()}/hook")
    page.get_by_text("Webhooks are verified with the secret of hooked").wait_for()
    webhook, key = state.webhooks.show("hooked"), state.keys.find("hooked")
    assert webhook is not None
    assert key is not None
    assert page.inner_text("#made-secret") == webhook.secret
    expect(page.locator("#webhooks-section")).to_be_hidden()
    order = JobOrder("source", None, 4, "")
    job = state.jobs.submit(key.id, order, is_metered=False, max_unfinished=9).job
    state.jobs.cancel(key.id, job.id)
    page.reload()
    page.get_by_role("button", name=f"Send again: {job.id}").click()
    page.locator("#audit td", has_text="webhooks retry").wait_for()
    assert row_of(page, "webhooks", job.id)[1:3] == ["hooked", "waiting"]


def test_the_page_shows_the_servers_reason_for_a_refusal(open_admin: OpenPage) -> None:
    page = open_admin()
    page.fill("#create [name=name]", "idle")
    page.click("#create button")
    page.get_by_text("an API key named idle is already active").wait_for()


def test_a_reload_keeps_the_key_and_the_button_deletes_it(open_admin: OpenPage) -> None:
    page = open_admin()
    page.locator("#plot svg").wait_for()
    page.reload()
    page.locator("#plot svg").wait_for()
    page.click("#leave")
    page.locator("#enter").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_reload_that_fails_does_not_drop_the_key(open_admin: OpenPage) -> None:
    page = open_admin()
    page.locator("#plot svg").wait_for()
    page.route("**/admin/v1/keys", lambda route: route.fulfill(status=503, body="<h1>no</h1>"))
    page.reload()
    page.get_by_text("The server answered with status 503.").wait_for()
    assert not page.locator("#content").is_visible()
    page.unroute("**/admin/v1/keys")
    page.reload()
    page.locator("#plot svg").wait_for()


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        pytest.param(DESKTOP, "light", id="desktop-light"),
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(DESKTOP, "dark", id="desktop-dark"),
        pytest.param(PHONE, "light", id="phone-light"),
    ],
)
def test_the_page_passes_axe_and_fits_the_screen(
    open_admin: OpenPage, axe: str, scheme: str, viewport: dict[str, int]
) -> None:
    for secret in ("", SECRET):
        page = open_admin(secret, color_scheme=scheme, viewport=viewport)
        if secret:
            page.locator("#plot svg").wait_for()
            page.get_by_role("button", name="Revoke: idle").wait_for()
        page.evaluate(axe)
        found = page.evaluate("axe.run().then((run) => run.violations)")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
