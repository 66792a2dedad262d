"""Before and after: divider, zoom and pan, by what is painted."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import PHONE
from tests.browser.playground import CYAN, RED, Playground, is_near, red_picture
from tests.service.api.executors import TIMINGS, ResizingExecutor
from tests.service.api.serving import serve
from tests.service.api.waiting import wait_until
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]


@pytest.fixture
def compared(open_page: Open) -> Playground:
    """A red picture at the left of the divider, and its cyan result at the right."""
    playground = open_page()
    playground.upscale(red_picture(320, 240), scale=4)
    return playground


def box_of(playground: Playground, selector: str) -> Any:
    return playground.page.locator(selector).bounding_box()


def test_the_source_is_at_the_left_and_the_result_at_the_right(compared: Playground) -> None:
    assert is_near(compared.colour_at(0.3), RED)
    assert is_near(compared.colour_at(0.7), CYAN)
    assert compared.boundary() == pytest.approx(0.5, abs=0.01)


def test_the_tags_are_on_the_picture_where_both_fit(open_page: Open) -> None:
    playground = open_page()
    playground.upscale(red_picture(300, 400))
    picture, before, after = (
        box_of(playground, selector) for selector in ("#after", "#tag-before", "#tag-after")
    )
    assert picture["width"] < box_of(playground, "#stage")["width"]
    assert picture["x"] < before["x"] < before["x"] + before["width"] < after["x"]
    assert after["x"] + after["width"] < picture["x"] + picture["width"]


def test_the_divider_follows_the_mouse(compared: Playground) -> None:
    picture = box_of(compared, "#after")
    mouse = compared.page.mouse
    mouse.move(picture["x"] + 0.5 * picture["width"], picture["y"] + 100)
    mouse.down()
    mouse.move(picture["x"] + 0.25 * picture["width"], picture["y"] + 100)
    assert compared.boundary() == pytest.approx(0.25, abs=0.01)
    mouse.move(picture["x"] - 300, picture["y"] + 100)
    assert compared.boundary() == 0
    mouse.up()
    mouse.move(picture["x"] + 0.9 * picture["width"], picture["y"] + 100)
    assert compared.boundary() == 0


def test_the_divider_follows_a_finger(open_page: Open) -> None:
    playground = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    playground.upscale(red_picture(320, 240))
    assert playground.text("caption") == "Drag the divider. Double-tap to zoom."
    playground.page.locator("#stage").scroll_into_view_if_needed()
    stage = box_of(playground, "#stage")
    fingers = playground.page.context.new_cdp_session(playground.page)

    def touch(kind: str, *at: float) -> None:
        points = [{"x": stage["x"] + x * stage["width"], "y": stage["y"] + 80} for x in at]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5)
    touch("touchMove", 0.6)
    touch("touchMove", 0.8)
    touch("touchEnd")
    assert playground.boundary() == pytest.approx(0.8, abs=0.02)


def test_the_divider_follows_the_keyboard(compared: Playground) -> None:
    compared.page.focus("#split")
    for _ in range(10):
        compared.page.keyboard.press("ArrowLeft")
    assert compared.boundary() == pytest.approx(0.4, abs=0.01)
    assert compared.page.get_attribute("#split", "aria-valuetext") == "40 % before, 60 % after"
    compared.page.keyboard.press("End")
    assert compared.boundary() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("pixel_ratio", [1, 2])
def test_zoom_counts_the_pixels_of_the_result_and_of_the_screen(
    open_page: Open, pixel_ratio: int
) -> None:
    playground = open_page(device_scale_factor=pixel_ratio)
    playground.upscale(red_picture(320, 240), scale=4)
    stage = box_of(playground, "#stage")
    for zoom in (1, 2):
        playground.zoom(str(zoom))
        for image in ("#before", "#after"):
            assert box_of(playground, image)["width"] == 1280 * zoom / pixel_ratio
    playground.zoom("fit")
    assert box_of(playground, "#after")["width"] <= stage["width"]


def test_a_zoomed_picture_is_moved_by_mouse_and_by_arrow_keys(compared: Playground) -> None:
    compared.zoom("2")
    stage, before = box_of(compared, "#stage"), box_of(compared, "#after")
    mouse = compared.page.mouse
    mouse.move(stage["x"] + 100, stage["y"] + 100)
    mouse.down()
    mouse.move(stage["x"] + 180, stage["y"] + 60)
    mouse.up()
    dragged = box_of(compared, "#after")
    assert (dragged["x"] - before["x"], dragged["y"] - before["y"]) == (80, -40)
    compared.page.focus("#stage")
    compared.page.keyboard.press("ArrowRight")
    assert box_of(compared, "#after")["x"] == pytest.approx(
        dragged["x"] - stage["width"] / 10, abs=1
    )
    for _ in range(50):
        compared.page.keyboard.press("ArrowDown")
    end = box_of(compared, "#after")
    assert end["y"] + end["height"] == pytest.approx(stage["y"] + stage["height"], abs=1)
    assert compared.boundary() == pytest.approx(0.5, abs=0.01)


def test_a_double_click_zooms_in_and_out(compared: Playground) -> None:
    stage = box_of(compared, "#stage")
    at = {"x": stage["width"] * 0.9, "y": stage["height"] * 0.9}
    compared.page.locator("#stage").dblclick(position=at)
    assert compared.page.is_checked("[name=zoom][value='1']")
    assert box_of(compared, "#after")["width"] == 1280
    compared.page.locator("#stage").dblclick(position=at)
    assert compared.page.is_checked("[name=zoom][value='fit']")


def turn_wheel(playground: Playground, by_px: int, x: float = 0.5, y: float = 0.5) -> None:
    stage = box_of(playground, "#stage")
    playground.page.mouse.move(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
    playground.page.mouse.wheel(0, by_px)


def wait_for_width(playground: Playground, at_least_px: float) -> None:
    wait_until(lambda: box_of(playground, "#after")["width"] >= at_least_px)


def test_the_wheel_zooms_at_the_pointer(compared: Playground) -> None:
    before = box_of(compared, "#after")
    turn_wheel(compared, -500, 0.25, 0.75)
    wait_for_width(compared, 1.5 * before["width"])
    after = box_of(compared, "#after")
    assert compared.page.locator("[name=zoom]:checked").count() == 0
    for start, length, share in (("x", "width", 0.25), ("y", "height", 0.75)):
        point = before[start] + share * before[length]
        assert (point - after[start]) / after[length] == pytest.approx(share, abs=0.01)
    for _ in range(12):
        turn_wheel(compared, -500)
    wait_for_width(compared, 8 * 1280)
    assert box_of(compared, "#after")["width"] == 8 * 1280


def test_the_wheel_scrolls_the_page_where_nothing_is_left_to_zoom(compared: Playground) -> None:
    before = box_of(compared, "#after")
    turn_wheel(compared, -300)
    wait_for_width(compared, 1.5 * before["width"])
    assert compared.page.evaluate("scrollY") == 0
    turn_wheel(compared, 600)
    wait_until(lambda: compared.page.is_checked("[name=zoom][value=fit]"))
    assert box_of(compared, "#after") == before
    turn_wheel(compared, 300)
    wait_until(lambda: compared.page.evaluate("scrollY") > 0)


def test_two_fingers_zoom_and_one_moves(open_page: Open) -> None:
    playground = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    playground.upscale(red_picture(320, 240), scale=4)
    playground.page.locator("#stage").scroll_into_view_if_needed()
    stage, before = box_of(playground, "#stage"), box_of(playground, "#after")
    fingers = playground.page.context.new_cdp_session(playground.page)

    def touch(kind: str, *at: float) -> None:
        points = [
            {"x": stage["x"] + x * stage["width"], "y": stage["y"] + 100, "id": number}
            for number, x in enumerate(at)
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.4)
    touch("touchStart", 0.4, 0.6)
    touch("touchMove", 0.3, 0.7)
    touch("touchMove", 0.2, 0.8)
    touch("touchEnd")
    zoomed = box_of(playground, "#after")
    assert zoomed["width"] == pytest.approx(3 * before["width"], rel=0.05)
    assert zoomed["x"] + zoomed["width"] / 2 == pytest.approx(
        stage["x"] + stage["width"] / 2, abs=4
    )
    touch("touchStart", 0.7)
    touch("touchMove", 0.75)
    touch("touchMove", 0.8)
    touch("touchEnd")
    moved = box_of(playground, "#after")["x"] - zoomed["x"]
    assert moved == pytest.approx(0.1 * stage["width"], abs=2)


def test_transparent_pixels_are_shown_over_a_checkerboard(open_page: Open) -> None:
    playground = open_page()
    playground.upscale(red_picture(160, 120, alpha=0))
    with Image.open(io.BytesIO(playground.page.locator("#stage").screenshot())) as stage:
        right_half = np.asarray(stage.convert("RGB"))[100:400, stage.width * 3 // 4 :]
    colours, counts = np.unique(right_half.reshape(-1, 3), axis=0, return_counts=True)
    shares = {tuple(map(int, colour)): count for colour, count in zip(colours, counts, strict=True)}
    white, grey = shares[255, 255, 255], shares[201, 204, 209]
    assert white == pytest.approx(grey, rel=0.2)
    assert white + grey > 0.9 * counts.sum()


# The longest time for which the page could not have answered a click.
LONGEST_PAUSE = """async () => {
  let longest = 0, last = performance.now();
  const stop = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 5);
  window.longestPause = () => { clearInterval(stop); return longest; };
}"""


class PosterExecutor(ResizingExecutor):
    """Always answers with the largest picture there may be."""

    def __init__(self, poster: bytes) -> None:
        super().__init__()
        self.poster = poster

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        return Result(self.poster, "image/jpeg", 6000, 6000, "poster", "", TIMINGS)


def test_the_largest_result_never_freezes_the_page(open_page: Open, tmp_path: Path) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (750, 750, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((6000, 6000), Image.Resampling.BICUBIC).save(file, "JPEG")
    with serve(tmp_path, PosterExecutor(file.getvalue())) as service:
        # A page that freezes does so each time, a machine that pauses does not.
        assert any(
            longest_pause_ms(open_page(url=service.url), service.key) < 500 for _ in range(3)
        )


def longest_pause_ms(playground: Playground, key: str) -> float:
    """Show the largest result in every way, and return for how long the page answered nothing."""
    playground.key = key
    playground.choose(red_picture(1500, 1500))
    playground.page.wait_for_selector("#thumb:not([hidden])")
    playground.page.evaluate(LONGEST_PAUSE)
    playground.send()
    playground.wait_for_result()
    for zoom in ("1", "2", "fit"):
        playground.zoom(zoom)
        playground.page.focus("#split")
        for _ in range(10):
            playground.page.keyboard.press("ArrowRight")
    assert playground.text("fact-after").startswith("6000 × 6000 px")
    return float(playground.page.evaluate("longestPause()"))
