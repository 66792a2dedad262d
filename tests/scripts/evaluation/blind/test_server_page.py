"""The page in a real browser: keys vote, both sides show, the votes are on the disk."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.evaluation.blind.pairs import Comparison, make_pairs
from scripts.evaluation.blind.server import BlindServer
from scripts.evaluation.blind.tally import Tally
from scripts.evaluation.measure import Truth
from tests.browser.conftest import open_chromium

Pixels = NDArray[np.uint8]

pytestmark = pytest.mark.slow


def bright(small: Pixels) -> Pixels:
    return np.full((small.shape[0] * 2, small.shape[1] * 2, 3), 200, np.uint8)


def dark(small: Pixels) -> Pixels:
    return np.full((small.shape[0] * 2, small.shape[1] * 2, 3), 50, np.uint8)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Open a browser for this module alone: its event loop disturbs asynchronous tests."""
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BlindServer]:
    truth = Truth("noise", np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    comparison = Comparison({"bright": bright, "dark": dark}, [truth], ("clean",), 2, 1, 4)
    tally = Tally.open(tmp_path / "tally.json", {"upscalers": ["bright", "dark"]})
    with BlindServer(list(make_pairs(comparison)), tally) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_key_votes_for_the_side_shown_and_the_tally_counts_its_upscaler(
    chromium: Any, server: BlindServer, tmp_path: Path
) -> None:
    page = chromium.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    progress = page.locator("#progress")
    progress.filter(has_text="Pair 1 of 4").wait_for()
    assert page.evaluate("document.getElementById('left').width") == 480
    for number in range(4):
        progress.filter(has_text=f"Pair {number + 1} of 4").wait_for()
        page.wait_for_function(
            "number => ['left', 'right'].every(side => {"
            " const image = document.getElementById(side);"
            " return image.complete && image.naturalWidth && image.src.includes(`/${number}/`); })",
            arg=number,
        )
        if number == 2:
            page.keyboard.press("0")
            continue
        brighter = page.evaluate("""() => {
            const level = (side) => {
                const canvas = document.createElement("canvas");
                const context = canvas.getContext("2d");
                context.drawImage(document.getElementById(side), 0, 0);
                return context.getImageData(0, 0, 1, 1).data[0];
            };
            return level("left") > level("right") ? "1" : "2";
        }""")
        page.keyboard.press(brighter)
    progress.filter(has_text="All 4 pairs are judged").wait_for()
    assert page.locator("#summary tr").all_inner_texts() == [
        "bright\t3",
        "dark\t0",
        "no difference\t1",
    ]
    assert not page.locator("#pair").is_visible()
    page.close()
    assert complaints == []
    assert server.finished.is_set()
    stored = json.loads((tmp_path / "tally.json").read_text())
    assert stored["summary"]["wins"] == {"bright": 3, "dark": 0}
    assert stored["votes"]["2"]["preferred"] == ""


def test_backspace_shows_the_pair_before_for_another_vote(
    chromium: Any, server: BlindServer, tmp_path: Path
) -> None:
    page = chromium.new_page()
    page.goto(server.url)
    progress = page.locator("#progress")
    progress.filter(has_text="Pair 1 of 4").wait_for()
    page.keyboard.press("1")
    progress.filter(has_text="Pair 2 of 4").wait_for()
    page.keyboard.press("Backspace")
    progress.filter(has_text="Pair 1 of 4").wait_for()
    page.keyboard.press("0")
    progress.filter(has_text="Pair 2 of 4").wait_for()
    page.close()
    votes = json.loads((tmp_path / "tally.json").read_text())["votes"]
    assert [each["preferred"] for each in votes.values()] == [""]
