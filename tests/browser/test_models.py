"""Choosing a model on the page."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import PHONE
from tests.browser.painting import PaintingExecutor
from tests.browser.playground import Playground, red_picture
from tests.browser.test_access import SCHEMES, violations
from tests.service.api.routes.test_models import place_official, place_own
from tests.service.api.serving import Service

pytestmark = pytest.mark.slow

Open = Callable[..., Playground]
AUTO = "The best model that this server can afford for the picture."


@pytest.fixture(scope="module", autouse=True)
def models(service: Service) -> None:
    place_official(service, "realesrgan-x4plus", in_16_bits=True)
    place_own(service, "my-own-model")


def open_models(playground: Playground, key: str = "") -> None:
    playground.page.fill("#key", key or playground.key)
    playground.page.click("#models-summary")
    playground.page.wait_for_selector("#model-list input[value='my-own-model']", state="attached")


def cards(playground: Playground) -> dict[str, str]:
    """Return the text of each model's card, by the name that is sent."""
    found: list[tuple[str, str]] = playground.page.evaluate(
        "[...document.querySelectorAll('.model')].map((card) =>"
        " [card.querySelector('input').value, card.innerText.replace(/\\s*\\n\\s*/g, ' | ')])"
    )
    return dict(found)


def choose_model(playground: Playground, name: str) -> None:
    playground.page.check(f"[name=model][value='{name}']", force=True)


def test_the_models_of_the_server_are_shown_with_an_example_of_each(open_page: Open) -> None:
    playground = open_page()
    playground.page.click("#models-summary")
    playground.see("model-hint", "Enter the API key")
    assert list(cards(playground)) == ["auto"]
    playground.page.fill("#key", playground.key)
    playground.page.press("#key", "Tab")
    playground.page.wait_for_selector("#model-list input[value='my-own-model']", state="attached")
    assert cards(playground) == {
        "auto": f"Automatic | {AUTO}",
        "upscaled-x2": "upscaled-x2 | 2×, Apache-2.0",
        "upscaled-x2-faithful": "upscaled-x2-faithful | 2×, Apache-2.0",
        "upscaled-x4": "upscaled-x4 | 4×, BSD-3-Clause, 1.2 s a megapixel",
        "upscaled-x4-faithful": "upscaled-x4-faithful | 4×, Apache-2.0",
        "realesrgan-x4plus": "realesrgan-x4plus | 4×, BSD-3-Clause",
        "my-own-model": "my-own-model | 4×, the file's own",
    }
    shown = playground.page.evaluate(
        "Promise.all([...document.querySelectorAll('.model img')].map((picture) =>"
        " picture.decode().then(() => [picture.closest('label').querySelector('input').value,"
        " picture.naturalWidth, picture.naturalHeight])))"
    )
    examples = {name: (width, height) for name, width, height in shown}
    # Automatic shows what it takes first; one's own model has none.
    shipped = {f"upscaled-x{scale}{kind}" for scale in (2, 4) for kind in ("", "-faithful")}
    assert set(examples) == {"auto", *shipped, "realesrgan-x4plus"}
    assert set(examples.values()) == {(240, 180)}
    assert playground.page.is_hidden("#model-hint")


def test_times_are_those_of_the_picture_at_its_scale(open_page: Open) -> None:
    playground = open_page()
    playground.choose(red_picture(1000, 500))
    open_models(playground)
    assert cards(playground)["upscaled-x4"].endswith("BSD-3-Clause, about 615 ms")
    assert cards(playground)["auto"] == "Automatic | For this picture: upscaled-x4, about 615 ms."
    playground.choose(red_picture(400, 300))
    playground.see("model-list", "For this picture: realesrgan-x4plus.")
    playground.page.check("[name=scale][value='2']", force=True)
    assert cards(playground)["auto"] == "Automatic | For this picture: upscaled-x2, about 120 ms."
    assert cards(playground)["upscaled-x4"].endswith("BSD-3-Clause")  # at scale 2 not known yet


def test_a_picture_is_upscaled_by_the_chosen_model(
    open_page: Open, painter: PaintingExecutor
) -> None:
    playground = open_page()
    open_models(playground)
    choose_model(playground, "my-own-model")
    assert playground.text("models-summary") == "Model: my-own-model"
    painter.tempered_with = "upscaled-x4-faithful"
    try:
        playground.upscale(red_picture())
    finally:
        painter.tempered_with = ""
    assert painter.requests[-1].model == "my-own-model"
    assert playground.text("fact-model") == "my-own-model, tempered with upscaled-x4-faithful"
    assert "by my-own-model" in playground.page.text_content("#status")
    choose_model(playground, "auto")
    assert playground.text("models-summary") == "Model: automatic"
    playground.upscale(red_picture())
    assert painter.requests[-1].model == ""
    assert playground.text("fact-model") == "painted"


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
def test_the_program_names_the_model_too(open_page: Open, language: str) -> None:
    playground = open_page()
    playground.choose_language(language)
    assert "X-Upscale-Model" not in playground.text("snippet")
    open_models(playground)
    choose_model(playground, "upscaled-x4")
    named = (
        "X-Upscale-Model: upscaled-x4" if language == "curl" else '"X-Upscale-Model": "upscaled-x4"'
    )
    assert named in playground.text("snippet")


def test_a_model_that_was_removed_meanwhile_is_reported(open_page: Open, service: Service) -> None:
    playground = open_page()
    playground.expect_console_error("status of 400")
    place_own(service, "gone")
    open_models(playground)
    choose_model(playground, "gone")
    (service.settings.models_dir / "own" / "gone.pth").unlink()
    (service.settings.models_dir / "own" / "gone.json").unlink()
    playground.choose(red_picture())
    playground.send()
    assert playground.failure().startswith("The server cannot take this model.")


def test_no_models_are_listed_for_an_unknown_key(open_page: Open) -> None:
    playground = open_page()
    playground.expect_console_error("status of 401")
    playground.page.fill("#key", "upk_wrong")
    playground.page.click("#models-summary")
    playground.see("model-hint", "does not know this API key")
    assert list(cards(playground)) == ["auto"]
    playground.page.fill("#key", playground.key)
    playground.page.press("#key", "Tab")
    playground.see("model-list", "my-own-model")


def test_the_keyboard_alone_chooses_a_model(open_page: Open) -> None:
    playground = open_page()
    playground.page.fill("#key", playground.key)
    playground.page.focus("#models-summary")
    keyboard = playground.page.keyboard
    keyboard.press("Enter")
    playground.see("model-list", "my-own-model")
    keyboard.press("Tab")
    assert playground.focused() == "model"
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    assert playground.text("models-summary") == "Model: upscaled-x2-faithful"
    keyboard.press("Tab")
    assert playground.focused() == "send"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_picker_passes_axe(open_page: Open, axe: str, scheme: str) -> None:
    playground = open_page(color_scheme=scheme)
    open_models(playground)
    choose_model(playground, "realesrgan-x4plus")
    assert violations(playground, axe) == []
    playground.upscale(red_picture(320, 240))
    assert violations(playground, axe) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_the_picker_without_scrolling_sideways(open_page: Open, width: int) -> None:
    playground = open_page(viewport={**PHONE, "width": width})
    open_models(playground)
    assert playground.page.evaluate("document.documentElement.scrollWidth") == width
    boxes: Any = playground.page.evaluate(
        "[...document.querySelectorAll('.model')].map((card) => card.getBoundingClientRect())"
        ".map(({ left, right, height }) => [left, right, height])"
    )
    for left, right, height in boxes:
        assert left >= 0
        assert right <= width
        assert height >= 44, json.dumps(boxes)
