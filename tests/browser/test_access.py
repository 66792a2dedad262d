"""The page without a mouse, with a screen reader, in the dark, and on a phone."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import PHONE
from tests.browser.playground import Playground, red_picture
from tests.conftest import REPOSITORY_DIR

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]
SCHEMES = ("light", "dark")


def violations(playground: Playground, axe: str) -> list[str]:
    """Return the findings of axe-core, best practices included, with their places."""
    playground.page.evaluate(axe)
    found: list[dict[str, Any]] = playground.page.evaluate(
        "axe.run().then((run) => run.violations)"
    )
    return [
        f"{each['id']}: {json.dumps([node['target'] for node in each['nodes']])}" for each in found
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_step_from_upload_to_result_passes_axe(open_page: Open, axe: str, scheme: str) -> None:
    playground = open_page(color_scheme=scheme)
    playground.expect_console_error("status of 401")
    assert violations(playground, axe) == []
    playground.upscale(red_picture(320, 240))
    playground.zoom("2")
    assert violations(playground, axe) == []
    playground.send("upk_wrong")
    playground.failure()
    assert violations(playground, axe) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_documentation_passes_axe(open_page: Open, axe: str, scheme: str) -> None:
    playground = open_page("/docs", color_scheme=scheme)
    playground.page.wait_for_selector("#operations h2")
    assert violations(playground, axe) == []


def test_a_picture_is_upscaled_by_keyboard_alone(open_page: Open) -> None:
    playground = open_page()
    keyboard = playground.page.keyboard

    def tab_to(wanted: str, key: str = "Tab") -> None:
        for _ in range(20):
            keyboard.press(key)
            if playground.focused() == wanted:
                return
        raise AssertionError(f"no tab leads to {wanted}")

    tab_to("sample")
    keyboard.press("Enter")
    playground.page.wait_for_selector("#thumb:not([hidden])")
    tab_to("key")
    keyboard.type(playground.key)
    tab_to("scale")
    keyboard.press("ArrowLeft")
    assert playground.page.is_checked("[name=scale][value='2']")
    tab_to("send")
    keyboard.press("Enter")
    playground.wait_for_result()
    assert playground.focused() == "send"
    tab_to("download")
    with playground.page.expect_download():
        keyboard.press("Enter")
    tab_to("zoom", "Shift+Tab")
    keyboard.press("ArrowRight")
    assert playground.page.is_checked("[name=zoom][value='1']")
    tab_to("split", "Shift+Tab")
    keyboard.press("ArrowLeft")
    assert playground.page.input_value("#split") == "49"
    tab_to("language")
    keyboard.press("ArrowRight")
    assert playground.page.is_checked("[name=language][value=python]")
    assert playground.text("snippet").startswith("from pathlib import Path")


def test_tab_moves_the_focus_in_the_order_of_the_page(open_page: Open) -> None:
    playground = open_page()
    seen: list[str] = []
    while len(seen) < 40 and "snippet" not in seen:
        playground.page.keyboard.press("Tab")
        seen.append(playground.focused())
    named = [each for each in seen if each]
    assert named == [
        *(
            "image",
            "sample",
            "choose-folder",
            "choose-address",
            "key",
            "remember",
            "scale",
            "format",
            "models-summary",
            "send",
        ),
        *("split", "zoom", "with-key", "language", "copy", "snippet"),
    ]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_screen_shows_all_of_it_without_scrolling_sideways(
    open_page: Open, width: int
) -> None:
    playground = open_page(viewport={**PHONE, "width": width})
    playground.upscale(red_picture(320, 240), name="a-rather-long-name-" * 5 + ".png")
    assert playground.page.evaluate("document.documentElement.scrollWidth") == width
    for control in ("#image", "#key", "#send", "#download", "#copy", "#languages"):
        box = playground.page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 24


def test_the_copied_text_is_the_shown_one(open_page: Open) -> None:
    playground = open_page()
    playground.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playground.choose_language("javascript")
    playground.page.click("#copy")
    playground.see("copy", "Copied")
    copied = playground.page.evaluate("navigator.clipboard.readText()")
    assert copied == playground.page.text_content("#snippet")


def find_too_wide(page: Any, selector: str) -> list[list[int]]:
    """The width that each element needs, and that it has, where it scrolls sideways."""
    widths_px: list[list[int]] = page.eval_on_selector_all(
        selector, "all => all.map(each => [each.scrollWidth, each.clientWidth])"
    )
    return [each for each in widths_px if each[0] > each[1]]


def test_the_documentation_fits_a_phone(open_page: Open) -> None:
    playground = open_page("/docs", viewport={**PHONE, "width": 360})
    playground.page.wait_for_selector("#operations h2")
    assert find_too_wide(playground.page, "html, table") == []
    assert "Loading" not in playground.text("about")


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_for_operators_scrolls_sideways_and_no_table_of_one_does_on_a_phone(
    open_page: Open, width: int
) -> None:
    page = open_page("/docs", viewport={"width": width, "height": 844}).page
    names = [path.stem for path in sorted((REPOSITORY_DIR / "service/upscaled/docs").glob("*.md"))]
    assert "settings" in names
    selector = "html, table" if width == 360 else "html"
    too_wide = {}
    for name in names:
        page.goto(f"{page.url.partition('/docs')[0]}/docs/{name}")
        if found := find_too_wide(page, selector):
            too_wide[name] = found
    assert not too_wide
