"""Saving what was made: all as one archive, in a chosen format, on the clipboard."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import PHONE
from tests.browser.painting import PaintingExecutor
from tests.browser.playground import CYAN, Playground, is_near, red_picture
from tests.browser.test_strip import choose_several, rows, several, wait_until_idle
from tests.service.api.waiting import wait_until

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]


def read_archive(path: str | Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_twenty_pictures_on_a_phone_are_all_downloaded_by_keyboard_alone(open_page: Open) -> None:
    playground = open_page(viewport=PHONE, has_touch=True, is_mobile=True)
    keyboard = playground.page.keyboard
    # Chromium reports choosers only from here on; asked for right before the key, it may be late.
    playground.page.on("filechooser", lambda _: None)

    def tab_to(wanted: Callable[[str], bool]) -> None:
        for _ in range(90):
            keyboard.press("Tab")
            focused = "document.activeElement.id || document.activeElement.ariaLabel || ''"
            if wanted(playground.page.evaluate(focused)):
                return
        raise AssertionError("no tab leads there")

    tab_to(lambda name: name == "image")
    with playground.page.expect_file_chooser(timeout=60_000) as chooser:
        keyboard.press("Space")
    pictures = {f"holiday {number:02}.png": red_picture(120 + number, 90) for number in range(20)}
    chooser.value.set_files(
        [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in pictures.items()]
    )
    playground.see("chosen", "20 pictures")
    tab_to(lambda name: name == "key")
    keyboard.type(playground.key)
    tab_to(lambda name: name == "send")
    keyboard.press("Enter")
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 20
    tab_to(lambda name: name == "zip")
    with playground.page.expect_download() as archive:
        keyboard.press("Enter")
    assert archive.value.suggested_filename == "upscaled.zip"
    held = read_archive(archive.value.path())
    assert sorted(held) == [f"holiday {number:02}-x4.jpg" for number in range(20)]
    for number, name in enumerate(sorted(held)):
        with Image.open(io.BytesIO(held[name])) as picture:
            assert picture.size == (480 + 4 * number, 360)
    for name in list(pictures)[:8]:  # Chromium asks the user before the eleventh of a page
        tab_to(lambda label, name=name: label == f"Download {name}")  # type: ignore[misc]
        with playground.page.expect_download() as download:
            keyboard.press("Enter")
        saved = name.replace(".png", "-x4.jpg")
        assert download.value.suggested_filename == saved
        assert Path(download.value.path()).read_bytes() == held[saved]


def test_an_archive_keeps_the_folders_that_were_chosen(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "trip" / "day 2").mkdir(parents=True)
    for name in ("a.png", "day 2/a$&$$.png"):
        (tmp_path / "trip" / name).write_bytes(red_picture())
    playground = open_page()
    with playground.page.expect_file_chooser() as chooser:
        playground.page.click("#choose-folder")
    chooser.value.set_files(tmp_path / "trip")
    playground.see("chosen", "2 pictures")
    assert playground.page.is_hidden("#zip")
    playground.send()
    wait_until_idle(playground)
    with playground.page.expect_download() as archive:
        playground.page.click("#zip")
    names = ["trip/a-x4.jpg", "trip/day 2/a$&$$-x4.jpg"]
    assert sorted(read_archive(archive.value.path())) == names
    playground.see("summary", "2 pictures are in upscaled.zip.")


@pytest.mark.parametrize(
    ("choice", "extension", "format_name"),
    [("", "jpg", "JPEG"), ("webp", "webp", "WEBP"), ("lossless", "png", "PNG")],
)
def test_a_result_has_the_format_that_was_chosen(
    open_page: Open, tmp_path: Path, choice: str, extension: str, format_name: str
) -> None:
    playground = open_page()
    playground.page.select_option("#format", choice)
    playground.choose(red_picture(), "cat.png")
    snippet = playground.text("snippet")
    assert f"cat-x4.{extension}" in snippet
    assert ("X-Upscale-Format" in snippet) == bool(choice)
    playground.send()
    playground.wait_for_result()
    name, saved = playground.result_bytes(tmp_path)
    assert name == f"cat-x4.{extension}"
    with Image.open(io.BytesIO(saved)) as result:
        assert result.format == format_name


def test_escape_cancels_all_that_runs(open_page: Open, painter: PaintingExecutor) -> None:
    playground = open_page()
    choose_several(playground, several(4))
    painter.is_held = True
    try:
        playground.send()
        playground.see("list", "Tile 1 of 3")
        playground.page.keyboard.press("Escape")
        wait_until(lambda: rows(playground) == ["new"] * 4)
        wait_until(painter.has_been_cancelled.is_set)
    finally:
        painter.is_held = False
    assert playground.text("send") == "Upscale 4 pictures"
    playground.page.keyboard.press("Escape")
    playground.page.click("#send")
    wait_until_idle(playground)
    assert rows(playground) == ["done"] * 4


READ_CLIPBOARD = """async () => {
  const [item] = await navigator.clipboard.read();
  const blob = await item.getType("image/png");
  return [...new Uint8Array(await blob.arrayBuffer())];
}"""


def test_a_result_is_copied_to_the_clipboard_as_png(open_page: Open) -> None:
    playground = open_page()
    playground.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    playground.upscale(red_picture(100, 80), scale=2)
    playground.page.click("#copy-image")
    playground.see("copy-image", "Copied")
    copied: Any = playground.page.evaluate(READ_CLIPBOARD)
    with Image.open(io.BytesIO(bytes(copied))) as picture:
        assert (picture.format, picture.size) == ("PNG", (200, 160))
        colour: Any = picture.convert("RGB").getpixel((100, 80))
        assert is_near(colour, CYAN)
