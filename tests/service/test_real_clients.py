"""The programs that people really use, run against the real server: each uploads, fetches, fails.

The kit replays recorded bytes (tests/conformance/captured); here the libraries of today speak for
themselves. A client that is not installed is skipped by name.
"""

import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conformance.judge import distance_from
from tests.conformance.pictures import PICTURES
from tests.running import Server, serve

TIMEOUT_S = 60
PHOTO = PICTURES["photo"]
TOO_LARGE = {"error": "File size too large", "error_code": "file_size_too_large"}


@dataclass(frozen=True)
class Answer:
    """What a client reports: the body as JSON where it is JSON, else as bytes."""

    status: int
    content_type: str
    body: Any


@dataclass(frozen=True)
class Call:
    """What a client is asked to do. Without `accept` it sends the header of its own."""

    url: str
    key: str
    scale: str = "2"
    file: Path | None = None
    image_url: str | None = None
    accept: str | None = None
    copy: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-KEY": self.key, **({"Accept": self.accept} if self.accept else {})}


Client = Callable[[Call], Answer]


def to_answer(status: int, content_type: str, body: bytes) -> Answer:
    is_json = content_type == "application/json"
    return Answer(status, content_type, json.loads(body) if is_json else body)


def curl(call: Call) -> Answer:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    assert call.copy is not None
    # What curl adds by itself (Expect, Accept) stays as it is.
    command = [program, "--silent", "--show-error", "--max-time", str(TIMEOUT_S), call.url]
    command += ["-o", str(call.copy), "-w", "%{http_code} %{content_type}"]
    for name, value in call.headers.items():
        command += ["-H", f"{name}: {value}"]
    if call.file is not None:
        command += ["-F", f"image=@{call.file}", "-F", f"scale={call.scale}"]
    else:
        command += ["-H", "Content-Type: application/json"]
        command += ["-d", json.dumps({"image_url": call.image_url, "scale": int(call.scale)})]
    done = run(command)
    status, content_type = done.split(" ", 1)
    return to_answer(int(status), content_type, call.copy.read_bytes())


def requests(call: Call) -> Answer:
    library = pytest.importorskip("requests")
    with library.Session() as session:
        if call.file is not None:
            with call.file.open("rb") as file:
                reply = session.post(
                    call.url,
                    headers=call.headers,
                    files={"image": file},
                    data={"scale": call.scale},
                    timeout=TIMEOUT_S,
                )
        else:
            body = {"image_url": call.image_url, "scale": int(call.scale)}
            reply = session.post(call.url, headers=call.headers, json=body, timeout=TIMEOUT_S)
        return to_answer(reply.status_code, reply.headers["Content-Type"], reply.content)


def httpx(call: Call) -> Answer:
    library = pytest.importorskip("httpx")
    with library.Client(timeout=TIMEOUT_S, headers=call.headers) as client:
        if call.file is not None:
            with call.file.open("rb") as file:
                sent = {"files": {"image": file}, "data": {"scale": call.scale}}
                reply = client.post(call.url, **sent)
        else:
            body = {"image_url": call.image_url, "scale": int(call.scale)}
            reply = client.post(call.url, json=body)
        return to_answer(reply.status_code, reply.headers["Content-Type"], reply.content)


def aiohttp(call: Call) -> Answer:
    library = pytest.importorskip("aiohttp")
    import asyncio

    async def post() -> Answer:
        async with library.ClientSession(headers=call.headers) as session:
            if call.file is not None:
                form = library.FormData()
                form.add_field("image", call.file.open("rb"), filename=call.file.name)
                form.add_field("scale", call.scale)
                sent: dict[str, Any] = {"data": form}
            else:
                sent = {"json": {"image_url": call.image_url, "scale": int(call.scale)}}
            async with session.post(call.url, **sent) as reply:
                body = await reply.read()
                return to_answer(reply.status, reply.headers["Content-Type"], body)

    return asyncio.run(post())


NODE_REPORTS = """
const report = (status, type, body) => {
  require('fs').writeFileSync(call.copy, Buffer.from(body));
  console.log(`${status} ${type}`);
};
const call = JSON.parse(process.argv[1]);
"""
NODE_FETCH = """
(async () => {
  const init = {method: 'POST', headers: {...call.headers}};
  if (call.file) {
    init.body = new FormData();
    init.body.append('image', new Blob([require('fs').readFileSync(call.file)]), 'photo.jpg');
    init.body.append('scale', call.scale);
  } else {
    init.headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify({image_url: call.image_url, scale: Number(call.scale)});
  }
  const reply = await fetch(call.url, init);
  report(reply.status, reply.headers.get('content-type'), await reply.arrayBuffer());
})();
"""
NODE_AXIOS = """
(async () => {
  const axios = require('axios');
  const Form = require('form-data');
  const fs = require('fs');
  const options = {
    headers: {...call.headers}, responseType: 'arraybuffer', validateStatus: () => true,
    maxBodyLength: Infinity,
  };
  let body = {image_url: call.image_url, scale: Number(call.scale)};
  if (call.file) {
    body = new Form();
    body.append('image', fs.createReadStream(call.file));
    body.append('scale', call.scale);
    Object.assign(options.headers, body.getHeaders());
  }
  const reply = await axios.post(call.url, body, options);
  report(reply.status, reply.headers['content-type'], reply.data);
})();
"""


def node_fetch(call: Call) -> Answer:
    return run_node(NODE_FETCH, call)


def axios(call: Call) -> Answer:
    node = shutil.which("node")
    wanted = "require.resolve('axios'); require.resolve('form-data')"
    if node is None or subprocess.run([node, "-e", wanted], capture_output=True).returncode:
        pytest.skip("axios is not installed: npm install axios form-data, and set NODE_PATH")
    return run_node(NODE_AXIOS, call)


def run_node(script: str, call: Call) -> Answer:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    assert call.copy is not None
    asked = {"url": call.url, "headers": call.headers, "scale": call.scale, "copy": str(call.copy)}
    asked |= {"file": str(call.file)} if call.file else {"image_url": str(call.image_url)}
    done = run([node, "-e", NODE_REPORTS + script, json.dumps(asked)])
    status, content_type = done.strip().split(" ", 1)
    return to_answer(int(status), content_type, call.copy.read_bytes())


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


CLIENTS: tuple[Client, ...] = (curl, requests, httpx, aiohttp, node_fetch, axios)
EVERY_CLIENT = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(
        tmp_path_factory.mktemp("clients"),
        UPSCALED_RATE_PER_S="10000",
        UPSCALED_RATE_BURST="10000",
        UPSCALED_THREADS="1",
    ) as server:
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
def test_an_upload_by_default_gets_a_url_that_is_taken_again(client: Client, call: Call) -> None:
    """The client's own default headers; then the result is fed back, and asked for as an image."""
    answer = client(call)
    assert (answer.status, list(answer.body)) == (200, ["result_url"])
    again = differing(call, file=None, image_url=answer.body["result_url"], accept="image/*")
    check_picture(client(again), (PHOTO.width_px * 4, PHOTO.height_px * 4), "JPEG")


@EVERY_CLIENT
def test_an_upload_that_accepts_images_gets_the_image(client: Client, call: Call) -> None:
    answer = client(differing(call, accept="image/*", scale="4"))
    check_picture(answer, (PHOTO.width_px * 4, PHOTO.height_px * 4), "JPEG")


@EVERY_CLIENT
def test_a_file_over_a_megabyte_is_taken(client: Client, call: Call) -> None:
    assert call.file is not None
    call.file.write_bytes(PICTURES["over_1_mb"].data)
    answer = client(differing(call, accept="image/*"))
    check_picture(answer, (PHOTO.width_px * 2, PHOTO.height_px * 2), "JPEG")


@EVERY_CLIENT
@pytest.mark.parametrize("picture", ["a_byte_over_25_mb", "twice_25_mb"])
def test_a_file_too_large_is_told_so(client: Client, picture: str, call: Call) -> None:
    """No client may see a broken connection instead of the answer, however early it comes."""
    assert call.file is not None
    call.file.write_bytes(PICTURES[picture].data)
    answer = client(call)
    assert (answer.status, answer.content_type) == (400, "application/json")
    assert answer.body == TOO_LARGE


@EVERY_CLIENT
def test_a_wrong_key_is_told_so_though_the_body_is_large(client: Client, call: Call) -> None:
    assert call.file is not None
    call.file.write_bytes(PICTURES["exactly_25_mb"].data)
    answer = client(differing(call, key="sk_nobody"))
    assert (answer.status, answer.body["error_code"]) == (401, "invalid_auth_token")
