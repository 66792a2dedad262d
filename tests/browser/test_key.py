"""The API key between visits, and the one that comes with the address."""

from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.browser.playground import Playground, red_picture

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]


def stored(playground: Playground) -> tuple[str | None, str | None]:
    """Return what the computer and what the tab keep."""
    found: list[str | None] = playground.page.evaluate(
        "[localStorage, sessionStorage].map((store) => store.getItem('upscaled-key'))"
    )
    return found[0], found[1]


def open_another_tab(playground: Playground) -> Playground:
    other = Playground(playground.page.context.new_page(), playground.url, playground.key)
    other.open()
    return other


def key_shown(playground: Playground) -> str:
    return str(playground.page.input_value("#key"))


def test_a_key_is_kept_as_long_as_its_tab(open_page: Open) -> None:
    playground = open_page()
    playground.page.fill("#key", "upk_mine")
    playground.page.press("#key", "Tab")
    assert stored(playground) == (None, "upk_mine")
    playground.page.reload()
    assert key_shown(playground) == "upk_mine"
    assert key_shown(open_another_tab(playground)) == ""


def test_a_key_is_stored_on_the_computer_if_the_user_chooses_so(open_page: Open) -> None:
    playground = open_page()
    assert not playground.page.is_checked("#remember")
    playground.page.fill("#key", "upk_mine")
    playground.page.check("#remember")
    assert stored(playground) == ("upk_mine", None)
    other = open_another_tab(playground)
    assert key_shown(other) == "upk_mine"
    assert other.page.is_checked("#remember")
    other.page.uncheck("#remember")
    assert stored(other) == (None, "upk_mine")
    assert key_shown(open_another_tab(playground)) == ""


def test_a_deleted_key_is_in_no_storage_of_the_browser(open_page: Open) -> None:
    playground = open_page()
    playground.page.check("#remember")
    playground.page.fill("#key", "upk_mine")
    playground.page.press("#key", "Tab")
    playground.page.fill("#key", "")
    playground.page.press("#key", "Tab")
    assert stored(playground) == (None, None)


def test_the_key_of_a_link_is_used_and_removed_from_the_address(open_page: Open) -> None:
    playground = open_page()
    playground.page.goto("about:blank")
    playground.open(f"/?from=mail#key={quote(playground.key)}")
    assert key_shown(playground) == playground.key
    assert playground.page.url == f"{playground.url}/?from=mail"
    assert all(playground.key not in url for url in playground.requested)
    playground.choose(red_picture())
    playground.page.click("#send")
    playground.wait_for_result()


def test_a_link_also_reaches_a_page_that_is_open(open_page: Open) -> None:
    playground = open_page()
    playground.page.evaluate("location.hash = '#key=upk_other'")
    playground.page.wait_for_url(playground.url + "/")
    assert key_shown(playground) == "upk_other"
    assert stored(playground) == (None, "upk_other")


def test_a_link_does_not_replace_the_key_stored_on_the_computer(open_page: Open) -> None:
    playground = open_page()
    playground.page.fill("#key", "upk_mine")
    playground.page.check("#remember")
    playground.page.evaluate("location.hash = '#key=upk_other'")
    playground.page.wait_for_url(playground.url + "/")
    assert key_shown(playground) == "upk_other"
    assert not playground.page.is_checked("#remember")
    assert stored(playground) == ("upk_mine", "upk_other")
    playground.page.reload()
    assert key_shown(playground) == "upk_other"
    assert key_shown(open_another_tab(playground)) == "upk_mine"


def test_a_link_with_the_kept_key_changes_nothing(open_page: Open) -> None:
    playground = open_page()
    playground.page.fill("#key", "upk_mine")
    playground.page.check("#remember")
    playground.page.evaluate("location.hash = '#key=upk_mine'")
    playground.page.wait_for_url(playground.url + "/")
    assert playground.page.is_checked("#remember")
    assert stored(playground) == ("upk_mine", None)


def test_a_fragment_that_is_no_key_is_not_removed_from_the_address(open_page: Open) -> None:
    playground = open_page("/#form")
    assert playground.page.url.endswith("/#form")
    assert key_shown(playground) == ""


def test_the_page_works_in_a_browser_without_storage(open_page: Open) -> None:
    playground = open_page("/docs")
    playground.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage', 'indexedDB'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no'); } });"
    )
    playground.open()
    playground.page.check("#remember")
    playground.choose(red_picture())
    playground.send()
    playground.wait_for_result()
