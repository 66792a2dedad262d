"""Results of a tab survive its reload, but no other key, other tab or end of the tab."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.painting import PaintingExecutor
from tests.browser.playground import Playground, red_picture
from tests.browser.test_access import SCHEMES, violations
from tests.browser.test_key import key_shown, open_another_tab
from tests.browser.test_strip import choose_several, press, row_of, rows, several, wait_until_idle
from tests.service.api.waiting import wait_until

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]

# The names of the kept files' pictures, by what sessionStorage and IndexedDB hold together.
OPEN_STORE = """(change) => new Promise((resolve) => {
  const request = indexedDB.open("upscaled-results", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("files", { keyPath: "id" });
  request.onsuccess = () => {
    const files = request.result.transaction("files", "readwrite").objectStore("files");
    files.getAll().onsuccess = ({ target }) => {
      request.result.close();
      resolve(target.result.map(({ id }) => id));
      if (change === "age") files.put({ ...target.result[0], at: 0 });
    };
  };
})"""


REVERSE_ENTRIES = """() => {
  const held = JSON.parse(sessionStorage.getItem("upscaled-results"));
  held.entries.reverse();
  sessionStorage.setItem("upscaled-results", JSON.stringify(held));
}"""


def kept(playground: Playground, change: str = "") -> list[str]:
    """Return the ids of the files that IndexedDB holds; "age": make the first as old as can be."""
    found: list[str] = playground.page.evaluate(OPEN_STORE, change)
    return found


def make(playground: Playground, count: int = 2) -> None:
    """Upscale some pictures, and wait until all are kept."""
    choose_several(playground, several(count))
    playground.send()
    wait_until_idle(playground)
    wait_until(lambda: len(kept(playground)) == count)


def test_results_with_their_pictures_are_kept_over_a_reload(
    open_page: Open, tmp_path: Path
) -> None:
    playground = open_page()
    make(playground)
    playground.page.wait_for_selector("#facts:not([hidden])")
    row_of(playground, "picture-0.png").locator(".pick").click()
    before = playground.result_bytes(tmp_path)
    # They come back in the order in which they were chosen, whichever was done first.
    for _ in range(2):
        playground.page.evaluate(REVERSE_ENTRIES)
        playground.page.reload()
        playground.see("summary", "2 of 2 done")
        names = playground.page.locator("#list li .pick").all_inner_texts()
        assert ["picture-0" in name for name in names] == [True, False], names
    playground.page.wait_for_selector("#facts:not([hidden]) #download[download='picture-0-x4.jpg']")
    assert rows(playground) == ["done", "done"]
    assert playground.result_bytes(tmp_path) == before
    assert "160 × 120 px" in playground.text("fact-before")
    assert playground.page.is_visible("#zip")
    assert playground.page.is_visible("#divider")
    playground.choose(red_picture(), "more.png")
    playground.page.click("#send")
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 3


def test_a_removed_picture_is_not_restored_by_a_reload(open_page: Open) -> None:
    playground = open_page()
    make(playground)
    press(playground, "Remove", "picture-0.png")
    wait_until(lambda: len(kept(playground)) == 1)
    playground.page.reload()
    playground.see("chosen", "picture-1.png")
    playground.page.click("#remove-all")
    assert playground.text("chosen") == "Choose pictures"
    assert playground.focused() == "image"
    assert playground.text("caption").startswith("A sample")
    wait_until(lambda: kept(playground) == [])
    playground.page.reload()
    assert playground.text("chosen") == "Choose pictures"
    assert playground.page.evaluate("sessionStorage.getItem('upscaled-results')") is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_expired_result_is_shown_as_expired(open_page: Open, axe: str, scheme: str) -> None:
    playground = open_page(color_scheme=scheme)
    make(playground)
    kept(playground, "age")
    playground.page.reload()
    playground.see("list", "Expired")
    assert sorted(rows(playground)) == ["done", "expired"]
    row = playground.page.locator("[data-state=expired]")
    row.locator(".pick").click()
    playground.see("no-preview", "This result has expired.")
    assert row.locator("a:visible, img:visible").count() == 0
    assert playground.page.is_hidden("#facts")
    assert violations(playground, axe) == []
    assert len(kept(playground)) == 1
    playground.page.click("#send")
    assert "Choose a picture first." in playground.failure()


@pytest.mark.parametrize("how", ["changed", "removed", "by a link", "in another tab"])
def test_results_of_one_key_are_not_shown_under_another(open_page: Open, how: str) -> None:
    playground = open_page()
    if how == "in another tab":
        playground.page.check("#remember")
    make(playground)
    if how == "in another tab":
        other = open_another_tab(playground)
        other.page.fill("#key", "")
        other.page.press("#key", "Tab")
    elif how == "by a link":
        playground.page.evaluate("location.hash = '#key=upk_other'")
    else:
        playground.page.fill("#key", "upk_other" if how == "changed" else "")
        playground.page.press("#key", "Tab")
    if how != "in another tab":
        wait_until(lambda: rows(playground) == ["new", "new"])
        assert playground.page.is_hidden("#facts")
        assert playground.page.is_hidden("#zip")
        wait_until(lambda: kept(playground) == [])
    playground.page.reload()
    wait_until(lambda: kept(playground) == [])
    assert key_shown(playground) != playground.key
    assert playground.text("chosen") == "Choose pictures"
    assert playground.page.evaluate("sessionStorage.getItem('upscaled-results')") is None


CHANGE_KEY_WHILE_FILES_ARE_READ = """
const { get } = IDBObjectStore.prototype;
IDBObjectStore.prototype.get = function (id) {
  const field = document.getElementById("key");
  field.value = "upk_other";
  field.dispatchEvent(new Event("change"));
  return get.call(this, id);
};"""


def test_pictures_whose_key_is_changed_while_they_are_read_are_not_shown(open_page: Open) -> None:
    playground = open_page()
    make(playground)
    playground.page.add_init_script(CHANGE_KEY_WHILE_FILES_ARE_READ)
    playground.page.reload()
    wait_until(lambda: key_shown(playground) == "upk_other")
    wait_until(lambda: kept(playground) == [])
    assert rows(playground) == []
    assert playground.text("chosen") == "Choose pictures"


def test_restored_pictures_are_removed_with_their_key(open_page: Open) -> None:
    playground = open_page()
    make(playground)
    playground.page.reload()
    playground.see("summary", "2 of 2 done")
    playground.choose(red_picture(), "mine.png")
    playground.page.fill("#key", "upk_other")
    playground.page.press("#key", "Tab")
    playground.see("chosen", "mine.png")
    assert rows(playground) == ["new"]


def test_a_tab_shows_no_results_of_others_and_deletes_those_of_closed_tabs(open_page: Open) -> None:
    playground = open_page()
    playground.page.check("#remember")
    make(playground)
    other = open_another_tab(playground)
    assert other.text("chosen") == "Choose pictures"
    playground.page.reload()
    playground.see("summary", "2 of 2 done")
    assert len(kept(playground)) == 2
    playground.page.close()
    other.page.reload()
    wait_until(lambda: kept(other) == [])


def test_the_oldest_results_are_deleted_above_the_limit(open_page: Open) -> None:
    """The bound is lowered to two results and a half."""
    playground = open_page()
    make(playground, 1)
    entry_bytes = playground.page.evaluate(
        "JSON.parse(sessionStorage.getItem('upscaled-results')).entries[0].bytes"
    )

    def lower(route: Any) -> None:
        script = route.fetch()
        text = script.text()
        assert "200e6" in text
        body = text.replace("200e6", str(int(2.5 * entry_bytes)))
        route.fulfill(response=script, body=body)

    playground.page.route("**/kept.js", lower)
    playground.page.reload()
    for name in ("second.png", "third.png"):
        playground.choose(red_picture(), name)
        playground.send()
        wait_until_idle(playground)
    wait_until(lambda: len(kept(playground)) == 2)
    playground.page.reload()
    playground.see("list", "Expired")
    assert rows(playground) == ["expired", "done", "done"]


def test_a_change_of_the_key_cancels_running_requests(
    open_page: Open, painter: PaintingExecutor
) -> None:
    playground = open_page()
    choose_several(playground, several(3))
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        playground.page.fill("#key", "")
        playground.page.press("#key", "Tab")
        wait_until(lambda: rows(playground) == ["new"] * 3)
        wait_until(painter.has_been_cancelled.is_set)
    finally:
        painter.is_held = False
    playground.page.click("#send")
    assert "The API key is missing." in playground.failure()
