"""A broken device's output never reaches a client: it is computed again, or answered as an error.

And a file that kills decoders costs other requests nothing.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.bilinear_model import add_bilinear_model
from tests.running import Server, serve
from tests.service.cli.test_serve_corpus import SETTINGS
from tests.service.crashing_decoder import DEADLY
from tests.service.faulty_device import FAULTS, WRONG_SIZE
from tests.service.image.samples import picture, save

PROGRAM = Path(__file__).with_name("faulty_server.py")
SOUND = "none nowhere"
SOURCE = save(picture(200, 160), "PNG")


class Spoiler:
    """A server, and what is wrong with it at the moment."""

    def __init__(self, server: Server, order: Path) -> None:
        self.server = server
        self._order = order

    def send(self, order: str, scale: int = 2, source: bytes = SOURCE) -> requests.Response:
        self._order.write_text(order)
        return requests.post(
            f"{self.server.url}/v1/upscale",
            headers={"X-API-KEY": self.server.key, "Accept": "image/*"},
            data={"scale": str(scale)},
            files={"image": ("f", source)},
            timeout=60,
        )


@pytest.fixture(scope="module")
def spoiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoiler]:
    data_dir = tmp_path_factory.mktemp("faulty")
    order = data_dir / "order"
    order.write_text(SOUND)
    add_bilinear_model(data_dir)
    program = (sys.executable, str(PROGRAM), str(order))
    changed = {"UPSCALED_MODEL_X4": "bilinear", "UPSCALED_TILE_WINDOW_PX": "96"}
    settings: dict[str, Any] = {**SETTINGS, **changed}
    with serve(data_dir, program=program, **settings) as server:
        yield Spoiler(server, order)


@pytest.mark.parametrize("fault", [*FAULTS, WRONG_SIZE])
@pytest.mark.parametrize("scale", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_fault_that_float32_does_not_have_leaves_no_trace(
    spoiler: Spoiler, fault: str, scale: int
) -> None:
    right = spoiler.send(SOUND, scale)

    answer = spoiler.send(f"{fault} fast", scale)

    assert (right.status_code, answer.status_code) == (200, 200)
    assert answer.content == right.content
    with Image.open(BytesIO(answer.content)) as shown:
        assert shown.size == (160 * scale, 200 * scale)


@pytest.mark.parametrize("fault", [*FAULTS, WRONG_SIZE])
def test_a_fault_that_float32_has_too_is_an_error_and_never_a_picture(
    spoiler: Spoiler, fault: str
) -> None:
    answer = spoiler.send(f"{fault} both")

    assert answer.status_code == 500
    assert answer.json() == {"error": "Internal service error", "error_code": "internal_error"}
    assert spoiler.send(SOUND).status_code == 200


def test_a_file_that_crashes_two_decoders_is_refused_and_no_other(spoiler: Spoiler) -> None:
    deadly = save(picture(100, 100), "JPEG", comment=DEADLY.encode())
    assert spoiler.send(SOUND).status_code == 200
    workers = spoiler.server.front_end().children()
    deaths = count_deaths(spoiler.server)

    with ThreadPoolExecutor(4) as clients:
        sources = [deadly, SOURCE] * 3
        answers = list(clients.map(lambda source: spoiler.send(SOUND, source=source), sources))

    assert {answer.status_code for answer in answers[1::2]} == {200}
    assert {(answer.status_code, answer.json()["error_code"]) for answer in answers[::2]} == {
        (400, "malformed_image")
    }
    assert count_deaths(spoiler.server) == deaths + 3 * 2
    assert spoiler.server.front_end().children() == workers


def count_deaths(server: Server) -> int:
    return sum("decoder_died" in line for line in server.stderr)
