"""The operators' pages are served as HTML, and every link in them leads somewhere."""

import re
from importlib.resources import files

import pytest

from tests.service.api.serving import Service

PAGES = sorted(
    file.name.removesuffix(".md")
    for file in (files("upscaled") / "docs").iterdir()
    if file.name.endswith(".md")
)


def test_the_list_of_pages_has_settings_models_errors_and_metrics() -> None:
    assert {"settings", "models", "errors", "metrics"} <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_served_and_all_it_loads_or_links_to_is_too(service: Service, name: str) -> None:
    page = service.get(f"/docs/{name}")
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|<!-- ", page.text)
    for link in re.findall(r'(?:href|src)="([^"#]+)(?:#[^"]*)?"', page.text):
        if "://" not in link:
            path = f"/{link[3:]}" if link.startswith("../") else f"/docs/{link}"
            assert service.get(path).status_code == 200, link


@pytest.mark.parametrize("name", PAGES)
def test_every_anchor_that_a_page_links_to_is_there(service: Service, name: str) -> None:
    text = service.get(f"/docs/{name}").text
    for link, anchor in re.findall(r'href="([^"#]*)#([^"]+)"', text):
        if "://" not in link:
            target = service.get(f"/docs/{link or name}").text
            assert f'id="{anchor}"' in target, (link, anchor)


def test_the_page_of_the_api_links_to_every_page(service: Service) -> None:
    assert [name for name in PAGES if f'href="docs/{name}"' not in service.get("/docs").text] == []


def test_an_unknown_page_is_answered_with_the_contracts_404(service: Service) -> None:
    answer = service.get("/docs/nothing")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")
