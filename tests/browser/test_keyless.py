"""The page of a service that needs no key."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser.painting import PaintingExecutor
from tests.browser.playground import Playground, red_picture
from tests.service.api.serving import Service, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def open_service(tmp_path: Path) -> Any:
    with serve(tmp_path / "data", PaintingExecutor(), auth="none") as running:
        yield running


def open_page(chromium: Any, service: Service, url: str = "") -> Playground:
    page = chromium.new_context(reduced_motion="reduce").new_page()
    playground = Playground(page, url or service.url, "")
    playground.open()
    return playground


def test_a_picture_is_upscaled_and_models_are_listed_without_a_key(
    chromium: Any, open_service: Service
) -> None:
    playground = open_page(chromium, open_service)
    assert not playground.page.is_visible("#key")
    assert "API key" not in playground.page.inner_text("#form")
    playground.choose(red_picture(96, 64))
    playground.page.click("#send")
    playground.wait_for_result()
    playground.page.click("#models-summary")
    playground.page.wait_for_selector("#model-list label")
    stored = "[localStorage, sessionStorage].map((each) => each.getItem('upscaled-key'))"
    assert playground.page.evaluate(stored) == [None, None]
    assert playground.unexpected_console_errors() == []
    playground.page.context.close()


def test_a_page_of_another_origin_is_refused(chromium: Any, open_service: Service) -> None:
    """Sent as any page may, without a preflight; the browser adds its origin."""
    with serve(open_service.settings.data_dir.parent / "other") as other:
        page = chromium.new_context().new_page()
        page.goto(f"{other.url}/healthz")  # no policy there forbids the call
        page.evaluate(
            """(url) => fetch(url, {
                method: "POST", mode: "no-cors", body: new URLSearchParams({ scale: 2 }),
            })""",
            f"{open_service.url}/v1/upscale",
        )
        metrics = open_service.get("/metrics").text
        page.context.close()
    refused = 'error_code="invalid_auth_token",route="/v1/upscale",status="401"'
    assert f"upscaled_requests_total{{{refused}}} 1.0" in metrics


@pytest.fixture
def foreign_page(chromium: Any) -> Any:
    """A page of a browser whose DNS leads evil.example to this machine."""
    browser = chromium.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=["--headless", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
    )
    yield browser.new_context(reduced_motion="reduce").new_page()
    browser.close()


def test_a_foreign_host_name_that_resolves_to_this_machine_is_refused(
    foreign_page: Any, open_service: Service
) -> None:
    """DNS rebinding: to the browser the page and the service are of one origin."""
    foreign_page.goto(f"http://evil.example:{open_service.port}/healthz")
    answer = foreign_page.evaluate("fetch('/v1/credits').then((answer) => answer.json())")
    assert answer == {"error": "Host or Origin not allowed", "error_code": "invalid_auth_token"}


def test_the_page_under_a_name_that_is_not_allowed_names_the_setting(
    foreign_page: Any, open_service: Service
) -> None:
    playground = Playground(foreign_page, f"http://evil.example:{open_service.port}", "")
    playground.open()
    playground.choose(red_picture(96, 64))
    playground.page.click("#send")
    shown = playground.failure()
    assert "UPSCALED_ALLOWED_HOSTS" in shown
    assert "API key" not in shown
