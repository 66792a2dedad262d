"""16 bits a channel over HTTP: through the front end, a worker and its decoder process."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests

from tests.bilinear_model import add_bilinear_model
from tests.running import Server, serve
from tests.service.cli.test_serve_memory import MIB, peak_mib
from tests.service.image.samples import GREY, GREY_ALPHA, RGB, RGBA, png
from tests.service.upscale.test_image_work_deep import CHANNELS, gradient, read_deep_png

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("deep"), UPSCALED_RATE_BURST="100") as server:
        yield server


def ask(
    server: Server, source: bytes, scale: int = 4, accept: str = "image/*"
) -> requests.Response:
    answer = requests.post(
        f"{server.url}/v1/upscale",
        headers={"X-API-KEY": server.key, "Accept": accept},
        files={"image": source},
        data={"scale": str(scale)},
        timeout=300,
    )
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("colour", [GREY_ALPHA, RGBA])
def test_with_alpha_the_answer_is_a_png_of_16_bits(server: Server, colour: int) -> None:
    source = gradient(70, 80, CHANNELS[colour])

    answer = ask(server, png(source, 16, colour))

    assert answer.headers["Content-Type"] == "image/png"
    result = read_deep_png(answer.content)
    assert result.shape == (280, 320, 4)
    assert len(np.unique(result[..., 0])) > 2_500
    small = cv2.resize(result[..., :1], (80, 70), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - source[..., 0]).mean() < 20


@pytest.mark.parametrize("colour", [GREY, RGB])
def test_opaque_the_answer_is_a_jpeg_as_ever(server: Server, colour: int) -> None:
    answer = ask(server, png(gradient(70, 80, CHANNELS[colour]), 16, colour), 2, "*/*")

    assert answer.json()["result_url"].endswith(".jpg")


@pytest.mark.timeout(600)
def test_the_largest_possible_answer_is_received_whole(tmp_path: Path) -> None:
    """Noise, which nothing compresses: 36 megapixels of 8 bytes. A bilinear network, so that the
    time goes into what is larger here."""
    add_bilinear_model(tmp_path, scale=4)
    pixels = np.random.default_rng(0).integers(0, 65536, (1500, 1500, 4), np.uint16)
    with serve(tmp_path, UPSCALED_MODEL_X4="bilinear") as server, peak_mib(server) as peak:
        result = ask(server, png(pixels, 16, RGBA)).content

    assert len(result) > 200 * MIB
    assert read_deep_png(result).shape == (6000, 6000, 4)
    assert peak[0] < 2560
