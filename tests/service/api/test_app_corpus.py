"""Every kind of file, sent both ways: never a 5xx, never a hang, refused within ten seconds.

The pixels are not decoded here, so a file that is broken behind its header may pass; that the
worker then refuses it is tested where the worker is.
"""

import http.server
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.executors import TIMINGS, ResizingExecutor
from tests.service.api.serving import Service, serve
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

REFUSED = {
    "malformed_image",
    "unsupported_image_format",
    "resolution_too_high",
    "invalid_parameter",
    "file_size_too_large",
}


class AcceptingExecutor(ResizingExecutor):
    """Takes whatever passed the front end, unseen."""

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        size = (request.width_px * request.scale, request.height_px * request.scale)
        return Result(b"pixels", "image/jpeg", *size, "none", "", TIMINGS)


@pytest.fixture(scope="module")
def front_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("corpus")
    with serve(
        data_dir,
        AcceptingExecutor(),
        credits=1000,
        metering=True,
        source_private_cidrs="127.0.0.1/32",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def files_url(shared_dir: Path) -> Iterator[str]:
    """The files on a web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    handler = partial(Quiet, directory=str(shared_dir / "images"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def assert_quick_and_in_the_contract(answer: requests.Response) -> str:
    assert answer.elapsed.total_seconds() < 10
    if answer.status_code == 200:
        return "taken"
    code = str(answer.json()["error_code"])
    assert code in REFUSED
    assert_error(answer, 400, code)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("folder", [pytest.param("decode", marks=pytest.mark.slow), "corrupt"])
def test_every_file_has_the_same_outcome_by_upload_and_by_url(
    front_end: Service, shared_dir: Path, files_url: str, folder: str
) -> None:
    root = shared_dir / "images"
    paths = sorted(path for path in (root / folder).rglob("*") if path.is_file())
    assert len(paths) > 50
    before = front_end.balance()
    taken = 0
    for path in paths:
        name = path.relative_to(root).as_posix()
        uploaded = front_end.upload(path.read_bytes())
        url = f"{files_url}/{quote(name)}"
        fetched = front_end.send_json({"image_url": url, "scale": 2})
        outcome = assert_quick_and_in_the_contract(uploaded)
        assert assert_quick_and_in_the_contract(fetched) == outcome, name
        taken += (uploaded.status_code == 200) + (fetched.status_code == 200)
    assert front_end.balance() == before - taken
    assert len(front_end.stored_files()) >= taken
    assert front_end.state.credits.audit() == ()


def test_every_beginning_of_a_file_is_answered(front_end: Service, shared_dir: Path) -> None:
    started = time.monotonic()
    for name in ("exif/Landscape_2.jpg", "1.webp", "rgba.png"):
        whole = (shared_dir / "images" / "decode" / name).read_bytes()
        for percent in range(0, 100, 10):
            answer = front_end.upload(whole[: len(whole) * percent // 100])
            assert_quick_and_in_the_contract(answer)
    assert time.monotonic() - started < 30
