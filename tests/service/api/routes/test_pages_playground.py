"""The page at / states the limits of the server that it comes from."""

import html
import json
import re
from importlib.resources import files

import pytest

from tests.service.api.serving import MakeService, Service
from upscaled.api.routes.pages import describe_bytes, describe_duration, describe_limits
from upscaled.config import load_settings

MOST_COMPRESSED_BYTES = 40_000
# As they lie on the disk, pictures aside: what is loaded before anything is chosen, and with all
# that is loaded later.
MOST_FIRST_BYTES = 80_000
MOST_BYTES = 100_000
TEXTS = (".html", ".js", ".css", ".svg")
STATIC = files("upscaled.api") / "static"
DOCUMENTATION = ("docs.html", "docs.js", "document.css", "document.html")


def read_limits(page: str) -> object:
    (limits,) = re.findall(r'data-limits="([^"]+)"', page)
    return json.loads(html.unescape(limits))


def test_the_page_holds_the_limits_of_a_server_without_settings(service: Service) -> None:
    page = service.get("/").text
    limits = read_limits(page)
    assert limits == describe_limits(service.settings)
    assert limits == {
        "sides": {"2": 3000, "4": 1500},
        "minSide": 64,
        "resultSide": 6000,
        "file": "25 MiB",
        "fileBytes": 25 * 1024 * 1024,
        "suffixes": [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"],
        "keptS": 3600,
    }
    assert "JPEG, PNG, WebP, up to 25 MiB" in page
    assert "over a reload too, for 1 hour." in page
    assert 'accept="image/jpeg,image/png,image/webp,.jpg,.jpeg,.jpe,.jfif,.png,.webp"' in page
    assert "$" not in page


def test_the_page_holds_the_limits_that_settings_widen(make_service: MakeService) -> None:
    service = make_service(
        max_input_side_x4=2000, max_file_bytes=40 * 1024 * 1024, extra_formats=("tiff", "avif")
    )
    page = service.get("/").text
    assert '"4": 2000' in html.unescape(page)
    assert "JPEG, PNG, WebP, AVIF, TIFF, up to 40 MiB" in page
    assert ".avif,.tif,.tiff" in page


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (1024, "1 KiB"),
        (1024 * 1024 - 1, "1023 KiB"),
        (1024 * 1024, "1 MiB"),
        (1_999_999, "1.9 MiB"),
        (25 * 1024 * 1024, "25 MiB"),
        (25 * 1024 * 1024 - 1, "24.9 MiB"),
    ],
)
def test_a_limit_in_words_is_never_more_than_it_is(size_bytes: int, words: str) -> None:
    assert describe_bytes(size_bytes) == words
    settings = load_settings({}, max_file_bytes=size_bytes)
    assert describe_limits(settings)["file"] == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (86_399, "23 hours"),
        (172_800, "2 days"),
    ],
)
def test_a_time_in_words_is_never_more_than_it_is(seconds: int, words: str) -> None:
    assert describe_duration(seconds) == words


def imports_of(module: str) -> set[str]:
    """Return the module and all that it imports, but for what it imports later."""
    found, left = set(), [module]
    while left:
        name = left.pop()
        found.add(name)
        text = (STATIC / name).read_text("utf-8")
        imported = re.findall(r'^import [^;]*"\./(.+?)";$', text, re.MULTILINE)
        left.extend(set(imported) - found)
    return found


def size_of(names: set[str]) -> int:
    return sum(len((STATIC / name).read_bytes()) for name in names)


def parts_of_the_page() -> set[str]:
    names = {file.name for file in STATIC.iterdir() if file.name.endswith(TEXTS)}
    return names - set(DOCUMENTATION)


def test_all_that_the_page_loads_is_small(service: Service) -> None:
    """Pictures aside: compressed, as browsers are sent it, and as it is."""
    loaded = parts_of_the_page()
    assert len(loaded) > 10
    paths = ["/" if name.endswith(".html") else f"/assets/{name}" for name in loaded]
    sizes = [int(service.get(path).headers["Content-Length"]) for path in paths]
    assert sum(sizes) < MOST_COMPRESSED_BYTES
    assert size_of(loaded) < MOST_BYTES


def test_a_first_visit_loads_less_and_names_it_in_advance() -> None:
    scripts = imports_of("playground.js")
    others = {name for name in parts_of_the_page() if not name.endswith(".js")}
    assert size_of(scripts | others) < MOST_FIRST_BYTES
    page = (STATIC / "playground.html").read_text("utf-8")
    preloaded = re.findall(r'rel="modulepreload" href="assets/(.+?)"', page)
    assert sorted(preloaded) == sorted(scripts - {"playground.js"})
