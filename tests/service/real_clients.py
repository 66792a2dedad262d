"""Client libraries, each behind one small function: send a file or a URL, report what came back."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """The answer as a client reports it: the body as JSON where it is JSON, else as bytes."""

    status: int
    content_type: str
    body: Any


@dataclass(frozen=True)
class Call:
    """One call of a client; without `accept` it sends the header of its own."""

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

    transports: list[asyncio.Transport] = []

    class Response(library.ClientResponse):  # type: ignore[misc,name-defined]
        async def start(self, connection: Any) -> Any:
            transports.append(connection.transport)
            return await super().start(connection)

    async def post() -> Answer:
        async with library.ClientSession(headers=call.headers, response_class=Response) as session:
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

    async def post_and_close() -> Answer:
        """End the connection with the loop: where the answer came before the whole body was sent,
        aiohttp has left it open to send the rest.
        """
        try:
            return await post()
        finally:
            for transport in transports:
                if transport.get_write_buffer_size():
                    transport.abort()
            await asyncio.sleep(0)

    return asyncio.run(post_and_close())


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
    request = {
        "url": call.url,
        "headers": call.headers,
        "scale": call.scale,
        "copy": str(call.copy),
    }
    request |= {"file": str(call.file)} if call.file else {"image_url": str(call.image_url)}
    done = run([node, "-e", NODE_REPORTS + script, json.dumps(request)])
    status, content_type = done.strip().split(" ", 1)
    return to_answer(int(status), content_type, call.copy.read_bytes())


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


CLIENTS: tuple[Client, ...] = (curl, requests, httpx, aiohttp, node_fetch, axios)
