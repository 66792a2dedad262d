"""Several pictures at once: the strip, its rows, and the queue behind it."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PHONE
from tests.browser.painting import PaintingExecutor
from tests.browser.playground import Playground, red_picture
from tests.browser.test_access import SCHEMES, violations
from tests.service.api.serving import Service, serve
from tests.service.api.waiting import wait_until
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]


def choose_several(playground: Playground, pictures: dict[str, bytes]) -> None:
    playground.page.set_input_files(
        "#image",
        [
            {"name": name, "mimeType": "image/png", "buffer": data}
            for name, data in pictures.items()
        ],
    )


def rows(playground: Playground) -> list[str]:
    """Return the state of each row, in the strip's order."""
    found: list[str] = playground.page.evaluate(
        "[...document.querySelectorAll('#list li')].map((row) => row.dataset.state)"
    )
    return found


def row_of(playground: Playground, name: str) -> Any:
    return playground.page.locator("#list li", has_text=name)


def press(playground: Playground, action: str, name: str) -> None:
    row_of(playground, name).get_by_role("button", name=f"{action} {name}").click()


def wait_until_idle(playground: Playground) -> None:
    playground.page.wait_for_selector("#progress", state="hidden")


def several(count: int) -> dict[str, bytes]:
    return {f"picture-{number}.png": red_picture() for number in range(count)}


class CountingExecutor(PaintingExecutor):
    """Counts the requests that are under way: `most` at once."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.now = self.most = 0

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return await super().upscale(source, request)
        finally:
            with self.lock:
                self.now -= 1


def test_several_pictures_are_sent_two_at_once(open_page: Open, tmp_path: Path) -> None:
    executor = CountingExecutor()
    with serve(tmp_path, executor) as service:
        playground = open_page(url=service.url)
        playground.key = service.key
        choose_several(playground, several(5))
        assert playground.text("chosen") == "5 pictures"
        assert playground.text("send") == "Upscale 5 pictures"
        executor.is_held = True
        playground.send()
        wait_until(lambda: executor.now == 2)
        assert rows(playground) == ["running", "running", "waiting", "waiting", "waiting"]
        assert playground.text("send") == "Upscaling"
        executor.is_held = False
        wait_until_idle(playground)
        assert rows(playground) == ["done"] * 5
        assert playground.text("summary") == "5 of 5 done"
        assert executor.most == 2


def test_each_row_has_its_progress_and_its_download(
    open_page: Open, painter: PaintingExecutor, tmp_path: Path
) -> None:
    playground = open_page()
    choose_several(playground, {"one.png": red_picture(), "two.png": red_picture(100, 90)})
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        bar = row_of(playground, "one.png").get_by_role("progressbar")
        assert 0 < bar.evaluate("(bar) => bar.value") < 1
        assert bar.get_attribute("aria-label") == "Progress of one.png"
    finally:
        painter.is_held = False
    wait_until_idle(playground)
    row_of(playground, "two.png").locator(".pick").click()
    assert playground.text("size-hint") == "100 × 90 px becomes 400 × 360 px."
    for name in ("one.png", "two.png"):
        with playground.page.expect_download() as download:
            row_of(playground, name).get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == name.replace(".png", "-x4.jpg")
        assert Path(download.value.path()).read_bytes().startswith(b"\xff\xd8")


def test_a_failed_picture_delays_no_other_and_can_be_retried(open_page: Open) -> None:
    playground = open_page()
    playground.expect_console_error("status of 400")
    large = {"large.png": red_picture(1600, 80), "good.png": red_picture()}
    choose_several(playground, {**large, "broken.png": b"\x89PNG\r\n\x1a\n"})
    playground.see("size-hint", "1 of 3 pictures: too large for 4×.")
    playground.send()
    wait_until_idle(playground)
    assert rows(playground) == ["failed", "done", "failed"]
    assert playground.text("summary") == "1 of 3 done, 2 failed"
    row_of(playground, "broken.png").locator(".pick").click()
    assert "This file is no picture" in playground.failure()
    playground.page.check("[name=scale][value='2']", force=True)
    press(playground, "Retry", "large.png")
    wait_until_idle(playground)
    assert rows(playground) == ["done", "done", "failed"]
    row_of(playground, "large.png").locator(".pick").click()
    playground.see("fact-after", "3200 × 160 px")
    assert playground.page.is_hidden("#failure")


def test_one_picture_of_a_run_may_be_cancelled_and_removed(
    open_page: Open, painter: PaintingExecutor
) -> None:
    playground = open_page()
    choose_several(playground, several(4))
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        press(playground, "Cancel", "picture-0.png")
        press(playground, "Cancel", "picture-3.png")
        wait_until(lambda: rows(playground)[0] == "new")
    finally:
        painter.is_held = False
    wait_until_idle(playground)
    assert rows(playground) == ["new", "done", "done", "new"]
    assert playground.text("send") == "Upscale 2 pictures"
    press(playground, "Remove", "picture-0.png")
    assert rows(playground) == ["done", "done", "new"]
    assert playground.page.evaluate("document.activeElement.innerText").startswith("picture-1.png")


def test_pictures_added_meanwhile_join_the_run(open_page: Open, painter: PaintingExecutor) -> None:
    playground = open_page()
    choose_several(playground, several(2))
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        playground.choose(red_picture(), "late.png")
        assert playground.text("send") == "Upscale 1 more"
        playground.page.click("#send")
        assert playground.text("send") == "Upscaling"
    finally:
        painter.is_held = False
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 3


def test_a_busy_server_is_retried_after_its_retry_after(open_page: Open, service: Service) -> None:
    playground = open_page()
    playground.expect_console_error("status of 429")
    refused: list[str] = []

    def refuse_thrice(route: Any) -> None:
        if len(refused) == 3:
            route.continue_()
            return
        refused.append(route.request.url)
        body = '{"error": "Too many requests", "error_code": "rate_limit_exceeded"}'
        route.fulfill(status=429, headers={"Retry-After": "1"}, body=body)

    playground.page.route("**/v1/upscale", refuse_thrice)
    choose_several(playground, several(3))
    playground.send()
    playground.see("list", "The server is busy. Again in 1 s")
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 3
    assert len(refused) == 3
    assert playground.page.is_hidden("#failure")


def test_a_wrong_key_stops_the_whole_run(open_page: Open) -> None:
    playground = open_page()
    playground.expect_console_error("status of 401")
    sent: list[str] = []
    playground.page.on("request", lambda request: sent.append(request.url))
    choose_several(playground, several(6))
    playground.send("upk_wrong")
    assert "does not know this API key" in playground.failure()
    wait_until_idle(playground)
    assert playground.focused() == "key"
    assert sum(url.endswith("/v1/upscale") for url in sent) <= 3
    playground.send()
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 6


def test_credits_that_run_out_stop_the_run_and_are_reported(
    open_page: Open, tmp_path: Path
) -> None:
    with serve(tmp_path, PaintingExecutor(), metering=True, credits=2) as service:
        playground = open_page(url=service.url)
        playground.expect_console_error("status of 403")
        choose_several(playground, several(8))
        playground.send(service.key)
        assert "This API key has no credits left." in playground.failure()
        wait_until_idle(playground)
        states = rows(playground)
        assert states[:2] == ["done", "done"]
        assert states[-3:] == ["new"] * 3


def test_removing_the_last_row_moves_the_focus_to_the_file_field(open_page: Open) -> None:
    playground = open_page()
    choose_several(playground, several(2))
    row_of(playground, "picture-1.png").get_by_role("button", name="Remove").focus()
    playground.page.keyboard.press("Enter")
    playground.see("chosen", "picture-0.png")
    assert playground.page.is_hidden("#strip")
    assert playground.focused() == "image"


def test_a_thumbnail_that_loads_after_its_picture_was_removed_is_no_error(open_page: Open) -> None:
    playground = open_page()
    choose_several(playground, several(2))
    late = playground.page.evaluate_handle("document.querySelector('#list .thumb')")
    press(playground, "Remove", "picture-0.png")
    late.evaluate("(thumb) => thumb.dispatchEvent(new Event('load'))")
    playground.see("chosen", "picture-1.png")


def test_choosing_a_folder_adds_the_pictures_in_it(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    (folder / "day 2").mkdir(parents=True)
    (folder / "b10.png").write_bytes(red_picture())
    (folder / "b9.png").write_bytes(red_picture())
    (folder / "day 2" / "c.PNG").write_bytes(red_picture())
    (folder / "notes.txt").write_text("no picture")
    playground = open_page()
    with playground.page.expect_file_chooser() as chooser:
        playground.page.click("#choose-folder")
    chooser.value.set_files(folder)
    playground.see("chosen", "3 pictures")
    names = playground.page.locator("#list strong").all_inner_texts()
    assert names == ["b9.png", "b10.png", "c.PNG"]
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("no picture")
    with playground.page.expect_file_chooser() as chooser:
        playground.page.click("#choose-folder")
    chooser.value.set_files(tmp_path / "none")
    assert "There are no pictures in it." in playground.failure()


# Chromium gives entries to real drops alone: these are made as the standard describes them.
DROP_ENTRIES = """([pictures]) => {
  const file = (name, path) => ({ isDirectory: false, name, fullPath: path + "/" + name,
    file: (give) => give(new File(["x"], name)) });
  const folder = (name, path, entries) => ({ isDirectory: true, name, createReader: () => {
    const left = [...entries];
    return { readEntries: (give) => give(left.splice(0, 100)) };
  } });
  const inner = folder("inner", "/trip", [file("deep.jpg", "/trip/inner")]);
  const many = Array.from({ length: pictures }, (_, number) => file(`${number}.jpg`, "/trip"));
  const trip = folder("trip", "", [...many, inner, file("notes.txt", "/trip")]);
  const data = { types: ["Files"], files: [], items: [
    { kind: "file", webkitGetAsEntry: () => trip, getAsFile: () => null },
    { kind: "string" },
    { kind: "file", webkitGetAsEntry: () => null, getAsFile: () => new File(["x"], "alone.gif") },
  ] };
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = data;
  document.body.dispatchEvent(event);
}"""


def test_a_whole_folder_may_be_dropped_however_many_it_holds(open_page: Open) -> None:
    playground = open_page()
    playground.page.evaluate(DROP_ENTRIES, [150])
    playground.see("chosen", "152 pictures")
    names = playground.page.locator("#list strong").all_inner_texts()
    assert names[:2] == ["0.jpg", "1.jpg"]
    assert names[-2:] == ["deep.jpg", "alone.gif"]


@pytest.mark.parametrize(("side", "large"), [(200, False), (201, True)])
def test_the_page_warns_of_what_this_server_refuses(
    open_page: Open, tmp_path: Path, side: int, large: bool
) -> None:
    with serve(tmp_path, max_input_side_x4=200, max_input_side_x2=200) as service:
        playground = open_page(url=service.url)
        playground.choose(red_picture(side, 100))
        playground.see("size-hint", f"{side} × 100 px")
        hint = playground.text("size-hint")
        assert ("is too large for 4×" in hint) == large
        assert "Choose 2×" not in hint
        assert bool(re.search("becomes 800 × 400 px", hint)) != large


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_strip_passes_axe(
    open_page: Open, axe: str, painter: PaintingExecutor, scheme: str
) -> None:
    playground = open_page(color_scheme=scheme)
    playground.expect_console_error("status of 400")
    choose_several(playground, {**several(4), "broken.png": b"\x89PNG\r\n\x1a\n"})
    assert violations(playground, axe) == []
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        assert violations(playground, axe) == []
    finally:
        painter.is_held = False
    wait_until_idle(playground)
    row_of(playground, "broken.png").locator(".pick").click()
    playground.failure()
    assert violations(playground, axe) == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_screen_shows_the_strip_without_scrolling_sideways(
    open_page: Open, width: int
) -> None:
    playground = open_page(viewport={**PHONE, "width": width})
    choose_several(playground, {**several(3), "x" * 120 + ".png": red_picture(600, 64)})
    playground.send()
    wait_until_idle(playground)
    row_of(playground, "xxx").locator(".pick").click()
    playground.page.wait_for_selector("#facts:not([hidden])")
    assert playground.page.evaluate("document.documentElement.scrollWidth") == width
    for control in playground.page.locator("#list button:visible, #list a:visible").all():
        box = control.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert min(box["width"], box["height"]) >= 24
    assert playground.page.locator("#drop").bounding_box()["y"] < PHONE["height"] / 2
