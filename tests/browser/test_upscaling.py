"""From a picture to its result, in a real browser."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import PHONE
from tests.browser.painting import TILES, PaintingExecutor
from tests.browser.playground import Playground, red_picture
from tests.running import serve
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]


def test_a_first_visit_loads_few_bytes_from_this_server_alone_and_paints_in_3_seconds(
    open_page: Open, service: Service
) -> None:
    playground = open_page()
    playground.page.wait_for_selector("#layer-after:not([hidden])")
    loaded = playground.page.evaluate(
        "performance.getEntries().filter((each) => each.encodedBodySize)"
        ".map((each) => [each.name, each.encodedBodySize])"
    )
    assert len(loaded) >= 8
    transferred = sum(size for name, size in loaded if not name.endswith(".jpg"))
    assert 15_000 < transferred < 36_000
    (painted_ms,) = playground.page.evaluate(
        "performance.getEntriesByName('first-contentful-paint').map((each) => each.startTime)"
    )
    assert painted_ms < 3000
    assert all(url.startswith(service.url) for url in playground.requested)


def test_a_picture_is_uploaded_and_its_result_shown(open_page: Open, tmp_path: Path) -> None:
    playground = open_page()
    playground.choose(red_picture(160, 120), "my cat.png")
    playground.page.wait_for_selector("#thumb:not([hidden])")
    assert playground.text("chosen") == "my cat.png"
    assert "160 × 120 px" in playground.text("chosen-facts")
    assert playground.text("size-hint") == "160 × 120 px becomes 640 × 480 px."
    playground.send()
    playground.wait_for_result()
    name, saved = playground.result_bytes(tmp_path)
    with Image.open(io.BytesIO(saved)) as result:
        assert (name, result.format, result.size) == ("my cat-x4.jpg", "JPEG", (640, 480))
    assert "160 × 120 px" in playground.text("fact-before")
    assert playground.text("fact-after") == f"640 × 480 px, {round(len(saved) / 1000)} kB"
    times = playground.text("time-list").split("\n")
    assert times[:4] == ["queue 1 ms", "decode 2 ms", "network 250 ms", "encode 3 ms"]
    assert times[4].startswith("transfer ")
    assert "640 × 480 px" in playground.page.text_content("#status")


def test_the_number_of_finished_tiles_is_shown_during_the_work(
    open_page: Open, painter: PaintingExecutor
) -> None:
    playground = open_page()
    playground.choose(red_picture())
    painter.is_held = True
    try:
        playground.send()
        for tile in range(1, TILES + 1):
            playground.see("progress-text", f"Tile {tile} of {TILES}")
            painter.go_on()
        playground.see("progress-text", "Writing the file")
        assert playground.page.get_attribute("#track", "aria-valuetext") == "Writing the file"
        assert playground.page.locator("#track").evaluate("(bar) => bar.value") == 0.9
    finally:
        painter.is_held = False
    playground.wait_for_result()
    assert playground.page.is_hidden("#progress")


def test_cancelling_stops_the_work_and_keeps_the_earlier_result(
    open_page: Open, painter: PaintingExecutor
) -> None:
    playground = open_page()
    playground.upscale(red_picture())
    painter.is_held = True
    try:
        playground.page.click("#send")
        playground.see("progress-text", "Tile 1")
        playground.page.focus("#cancel")
        playground.page.keyboard.press("Enter")
        playground.see("status", "Cancelled.")
        wait_until(painter.has_been_cancelled.is_set)
    finally:
        painter.is_held = False
    assert playground.focused() == "send"
    assert playground.page.is_visible("#download")
    playground.page.click("#send")
    playground.wait_for_result()


def test_a_picture_may_be_dropped_or_pasted(open_page: Open) -> None:
    playground = open_page()
    give = """([kind, name]) => {
      const data = new DataTransfer();
      data.items.add(new File(["no picture"], name, { type: "image/png" }));
      const options = { bubbles: true, cancelable: true };
      const event = kind === "paste"
        ? new ClipboardEvent(kind, { ...options, clipboardData: data })
        : new DragEvent(kind, { ...options, dataTransfer: data });
      document.body.dispatchEvent(event);
    }"""
    playground.page.evaluate(give, ["dragenter", "dropped.png"])
    assert playground.page.evaluate("document.body.classList.contains('dropping')")
    playground.page.evaluate(give, ["drop", "dropped.png"])
    playground.see("chosen", "dropped.png")
    assert not playground.page.evaluate("document.body.classList.contains('dropping')")
    playground.page.wait_for_selector("#no-preview:not([hidden])")
    assert playground.text("caption") == ""
    playground.page.evaluate(give, ["paste", "pasted.png"])
    assert playground.text("chosen") == "2 pictures"
    assert playground.page.locator("#list .pick").last.inner_text().startswith("pasted.png")


def test_the_sample_is_upscaled_with_a_key_alone(open_page: Open) -> None:
    playground = open_page(viewport=PHONE)
    playground.page.click("#sample")
    playground.page.wait_for_selector("#thumb:not([hidden])")
    playground.send()
    playground.wait_for_result()
    assert playground.text("fact-after").startswith("1280 × 960 px")


@pytest.mark.parametrize(
    ("language", "command"),
    [("curl", ["bash"]), ("python", [sys.executable]), ("javascript", ["node"])],
)
def test_the_program_shown_sends_the_same_request(
    open_page: Open, tmp_path: Path, language: str, command: list[str]
) -> None:
    name = 'it\'s a "cat" ä.png'
    playground = open_page()
    playground.upscale(red_picture(alpha=128), scale=2, name=name)
    playground.choose_language(language)
    assert playground.key not in playground.text("snippet")
    playground.page.check("#with-key")
    program = tmp_path / "program.mjs"
    program.write_text(playground.page.text_content("#snippet"))
    (tmp_path / name).write_bytes(red_picture(alpha=128))
    subprocess.run([*command, program], cwd=tmp_path, check=True, timeout=100)
    saved = (tmp_path / name.replace(".png", "-x2.png")).read_bytes()
    assert saved == playground.result_bytes(tmp_path)[1]


def test_a_real_server_upscales_the_sample_for_the_page(open_page: Open, tmp_path: Path) -> None:
    """The real front end, worker and network: the sample's tiles are seen, then its result."""
    with serve(tmp_path / "data", UPSCALED_TILE_WINDOW_PX="96") as server:
        playground = open_page(url=server.url)
        playground.key = server.key
        playground.page.set_default_timeout(60_000)  # the network on a busy processor
        playground.page.click("#sample")
        playground.page.wait_for_selector("#thumb:not([hidden])")
        playground.send()
        playground.see("progress-text", "Tile ")
        playground.wait_for_result()
        _, saved = playground.result_bytes(tmp_path)
        with Image.open(io.BytesIO(saved)) as result:
            assert result.size == (1280, 960)
