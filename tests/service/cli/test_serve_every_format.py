"""The real server with every format switched on: turned upright, and never half a picture."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image

from tests.running import Server
from tests.service.cli.test_serve_corpus import serve_bilinear
from tests.service.image.samples import exif_with_orientation, picture, save, stored_for
from tests.service.image.test_formats import TURNED, encode

pytestmark = pytest.mark.slow

FORMATS = "avif,bmp,heic,tiff"
LOSSY = 6.0
CLIENTS = 4
HEAD_BYTES = 1000
REAL = (
    "hopper_16bit_qtables.jpg",
    "orientation-6.png",
    "exif/hopper_orientation_6.webp",
    "dancing_banana2.lossless.webp",
    "avif/hopper.avif",
    "hopper_g4.tif",
)
LARGE = ("exif/Landscape_6.jpg", "sugarshack_bad_mpo_header.jpg", "rgba.png", "4.webp")

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve_bilinear(tmp_path_factory.mktemp("f"), UPSCALED_EXTRA_FORMATS=FORMATS) as server:
        yield server


def send(
    server: Server, source: bytes, session: requests.Session | None = None
) -> tuple[str, bytes]:
    """The error code, "" for a success, and the picture."""
    answer = (session or requests).post(
        f"{server.url}/v1/upscale",
        headers={"X-API-KEY": server.key, "Accept": "image/*"},
        data={"scale": "2"},
        files={"image": ("f", source)},
        timeout=60,
    )
    assert answer.status_code in (200, 400), answer.text
    return ("", answer.content) if answer.ok else (answer.json()["error_code"], b"")


@pytest.mark.parametrize("kind", [*TURNED, "PNG with alpha"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_an_upright_result(
    server: Server, kind: str, orientation: int
) -> None:
    has_alpha = kind == "PNG with alpha"
    upright = picture(72, 96, 4 if has_alpha else 3)
    stored = stored_for(upright, orientation)
    exif = {"exif": exif_with_orientation(orientation)}
    source = save(stored, "PNG", **exif) if has_alpha else encode(stored, kind, orientation)

    code, data = send(server, source)

    assert code == ""
    with Image.open(BytesIO(data)) as shown:
        assert shown.size == (2 * 96, 2 * 72)
        assert not shown.getexif()
        assert shown.format == ("PNG" if has_alpha else "JPEG")
        average = np.asarray(shown.reduce(2)).astype(int)
    assert np.abs(average - upright)[..., :3].mean() < LOSSY


def check_cuts(server: Server, source: bytes, lengths: Iterator[int] | range) -> None:
    """Each beginning of the file is refused as malformed, or answered by the whole's pixels.

    What stands behind them may be lost: a resolution, a second picture.
    """
    code, data = send(server, source)
    assert code == ""
    whole = pixels_of(data)

    def try_cut(length: int) -> tuple[int, str]:
        code, data = send(server, source[:length])
        is_whole = not code and np.array_equal(pixels_of(data), whole)
        return length, code or ("whole" if is_whole else "another picture")

    with ThreadPoolExecutor(CLIENTS) as clients:
        outcomes = list(clients.map(try_cut, lengths))
    odd = [each for each in outcomes if each[1] not in ("malformed_image", "whole")]
    assert odd == []
    assert Counter(word for _, word in outcomes)["malformed_image"] > len(outcomes) / 3


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as shown:
        return np.asarray(shown)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", REAL)
def test_every_beginning_of_a_file_is_refused_or_the_whole_picture(
    server: Server, shared_dir: Path, name: str
) -> None:
    """Cut at every byte."""
    source = (shared_dir / "images/decode" / name).read_bytes()
    check_cuts(server, source, range(len(source)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", LARGE)
def test_large_files_are_never_half_a_picture(server: Server, shared_dir: Path, name: str) -> None:
    """Cut at every whole percentage, and in the last bytes."""
    source = (shared_dir / "images/decode" / name).read_bytes()
    cuts = {len(source) * percent // 100 for percent in range(100)}
    check_cuts(server, source, iter(sorted(cuts | set(range(len(source) - 20, len(source))))))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "WEBP", "AVIF", "HEIC"])
def test_every_beginning_of_a_made_file_is_refused_or_the_whole_picture(
    server: Server, kind: str
) -> None:
    """Cut at every byte of the head, and at every whole percentage."""
    pixels = picture(64, 64)
    source = (
        save(pixels, "JPEG", progressive=True) if kind == "progressive" else encode(pixels, kind)
    )
    cuts = {len(source) * percent // 100 for percent in range(100)}
    check_cuts(server, source, iter(sorted(cuts | set(range(min(HEAD_BYTES, len(source)))))))
