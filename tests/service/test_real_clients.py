"""The programs that people really use, run against the real server: each uploads, fetches, fails.

The conformance kit, in the quick suite, sends bytes that were recorded of them
(tests/conformance/captured); these slow tests run the libraries of today. A client that is not
installed is skipped by name.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bilinear_model import BILINEAR, add_bilinear_model
from tests.conformance.answer_checks import distance_from
from tests.conformance.pictures import PICTURES
from tests.running import Server, serve
from tests.service.real_clients import CLIENTS, Answer, Call, Client

pytestmark = pytest.mark.slow

PHOTO = PICTURES["photo"]
TOO_LARGE = {"error": "File size too large", "error_code": "file_size_too_large"}
EVERY_CLIENT = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    add_bilinear_model(folder)
    rates = {"UPSCALED_RATE_PER_S": "10000", "UPSCALED_RATE_BURST": "10000"}
    settings: dict[str, Any] = {"UPSCALED_THREADS": "1", **rates, **BILINEAR}
    with serve(folder, **settings) as server:
        yield server


@pytest.fixture
def call(server: Server, tmp_path: Path) -> Call:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PHOTO.data)
    endpoint = f"{server.url}/v1/upscale"
    return Call(endpoint, server.key, file=photo, copy=tmp_path / "answer")


def differing(call: Call, **changes: Any) -> Call:
    return Call(**{**vars(call), **changes})


def check_picture(answer: Answer, size: tuple[int, int], kind: str) -> None:
    assert answer.status == 200
    assert answer.content_type == f"image/{kind.lower()}"
    with Image.open(io.BytesIO(answer.body)) as image:
        assert (image.format, image.size) == (kind, size)
        assert distance_from(PHOTO, image) < (PHOTO.tolerance or 0)


@EVERY_CLIENT
def test_an_upload_by_default_gets_a_url_that_is_accepted_again(client: Client, call: Call) -> None:
    """The client's own default headers; then the result is the source of a second request."""
    answer = client(call)
    assert (answer.status, list(answer.body)) == (200, ["result_url"])
    again = differing(call, file=None, image_url=answer.body["result_url"], accept="image/*")
    check_picture(client(again), (PHOTO.width_px * 4, PHOTO.height_px * 4), "JPEG")


@EVERY_CLIENT
def test_an_upload_that_accepts_images_gets_the_image(client: Client, call: Call) -> None:
    answer = client(differing(call, accept="image/*", scale="4"))
    check_picture(answer, (PHOTO.width_px * 4, PHOTO.height_px * 4), "JPEG")


@EVERY_CLIENT
def test_a_file_over_a_megabyte_is_accepted(client: Client, call: Call) -> None:
    assert call.file is not None
    call.file.write_bytes(PICTURES["over_1_mb"].data)
    answer = client(differing(call, accept="image/*"))
    check_picture(answer, (PHOTO.width_px * 2, PHOTO.height_px * 2), "JPEG")


@EVERY_CLIENT
@pytest.mark.parametrize("picture", ["a_byte_over_25_mb", "twice_25_mb"])
def test_a_file_that_is_too_large_is_refused_with_the_reason(
    client: Client, picture: str, call: Call
) -> None:
    """No client may see a broken connection instead of the answer, however early it comes."""
    assert call.file is not None
    call.file.write_bytes(PICTURES[picture].data)
    answer = client(call)
    assert (answer.status, answer.content_type) == (400, "application/json")
    assert answer.body == TOO_LARGE


@EVERY_CLIENT
def test_a_wrong_key_is_answered_although_the_body_is_large(client: Client, call: Call) -> None:
    assert call.file is not None
    call.file.write_bytes(PICTURES["exactly_25_mb"].data)
    answer = client(differing(call, key="sk_unknown"))
    assert (answer.status, answer.body["error_code"]) == (401, "invalid_auth_token")
