"""`upscaled mcp` as clients run it: over standard input and output, and over HTTP behind a key."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the SDK of the extra `mcp` is not installed")

import httpx2
import requests
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from typer.testing import Result

from tests.running import REPOSITORY_DIR, UPSCALED, clean_environment, run_upscaled
from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import Service, serve
from tests.service.cli.invoking import invoke
from upscaled.config import load_settings

START = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(picture())
    return tmp_path


@dataclass
class HttpServer:
    url: str
    key: str
    process: "subprocess.Popen[str]"

    @property
    def port(self) -> int:
        return int(re.findall(r":(\d+)/", self.url)[0])

    def start_session(self, **headers: str) -> int:
        """The status of the first request of a client, sent with these headers."""
        answer = requests.post(self.url, json=START, headers=ACCEPT | headers, timeout=30)
        return answer.status_code


def settings_for(service: Service) -> dict[str, str]:
    return clean_environment(UPSCALED_MCP_SERVICE_URL=service.url, UPSCALED_MCP_API_KEY=service.key)


@contextmanager
def serve_http(service: Service, *arguments: str) -> Iterator[HttpServer]:
    command = [*UPSCALED, "mcp", "--http", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(
        command, cwd=REPOSITORY_DIR, env=settings_for(service), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr as lines:
        first = lines.readline()
        reader = threading.Thread(target=lines.read)  # so that it never waits for a full pipe
        reader.start()
        try:
            found = re.match(r"upscaled mcp on (http://\S+)$", first)
            assert found is not None, first
            yield HttpServer(found[1], service.key, process)
        finally:
            process.terminate()
            process.wait(60)
            reader.join(60)


@pytest.fixture(scope="module")
def http_server(service: Service) -> Iterator[HttpServer]:
    with serve_http(service, "--allowed-host", "mcp.example.com") as running:
        yield running


@asynccontextmanager
async def connect_stdio(service: Service, *arguments: str) -> AsyncIterator[Client]:
    command = [*UPSCALED, "mcp", *arguments]
    parameters = StdioServerParameters(
        command=command[0], args=command[1:], env=settings_for(service), cwd=REPOSITORY_DIR
    )
    async with Client(parameters) as client:
        yield client


async def test_a_client_starts_it_and_upscales_a_file(service: Service, folder: Path) -> None:
    async with connect_stdio(service, "--root", str(folder)) as client:
        answer = await client.call_tool("upscale_file", {"path": "photo.png", "scale": 2})
    assert not answer.is_error, answer
    assert size_of((folder / "photo-x2.jpg").read_bytes()) == (160, 128)


@pytest.mark.slow
async def test_without_a_root_it_reads_no_file(service: Service, folder: Path) -> None:
    async with connect_stdio(service) as client:
        path = str(folder / "photo.png")
        answer = await client.call_tool("upscale_file", {"path": path})
    assert answer.is_error
    assert "started without --root" in str(answer.content)


async def test_over_http_a_client_with_the_key_upscales_a_file(
    service: Service, folder: Path
) -> None:
    with serve_http(service, "--root", str(folder)) as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(server.url, http_client=http)) as client,
        ):
            answer = await client.call_tool("upscale_file", {"path": "photo.png", "scale": 4})
    assert not answer.is_error, answer
    assert size_of((folder / "photo-x4.jpg").read_bytes()) == (320, 256)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-KEY": ""},
        {"X-API-KEY": "wrong"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic {key}"},
        {"Authorization": "Bearer \xe9"},
    ],
)
def test_over_http_nothing_is_answered_without_the_key(
    http_server: HttpServer, headers: dict[str, str]
) -> None:
    headers = {name: value.format(key=http_server.key) for name, value in headers.items()}
    assert http_server.start_session(**headers) == 401
    other = http_server.url.replace("/mcp", "/other")
    assert requests.get(other, headers=headers, timeout=30).status_code == 401


@pytest.mark.parametrize("name", ["X-API-KEY", "Authorization"])
def test_over_http_the_key_is_accepted_in_either_header(http_server: HttpServer, name: str) -> None:
    value = http_server.key if name == "X-API-KEY" else f"bearer {http_server.key}"
    assert http_server.start_session(**{name: value}) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("mcp.example.com", 200),
        ("attacker.example:{port}", 421),
        ("mcp.example.com.attacker.example", 421),
        ("127.0.0.1:1", 421),
    ],
)
def test_over_http_another_host_is_refused(http_server: HttpServer, host: str, status: int) -> None:
    headers = {"X-API-KEY": http_server.key, "Host": host.format(port=http_server.port)}
    assert http_server.start_session(**headers) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:{port}", 200),
        ("https://mcp.example.com", 200),
        ("https://attacker.example", 403),
        ("null", 403),
    ],
)
def test_over_http_the_page_of_another_origin_is_refused(
    http_server: HttpServer, origin: str, status: int
) -> None:
    headers = {"X-API-KEY": http_server.key, "Origin": origin.format(port=http_server.port)}
    assert http_server.start_session(**headers) == status


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALED_MCP_API_KEY", "key")


def run_mcp(*arguments: str) -> Result:
    return invoke("mcp", *arguments)


def test_http_needs_a_key() -> None:
    ended = run_mcp("--http", "127.0.0.1:0")
    assert ended.exit_code == 2
    assert "--http needs UPSCALED_MCP_API_KEY" in ended.stderr


@pytest.mark.usefixtures("with_key")
@pytest.mark.parametrize(
    "address", ["8351", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "a:1/x"]
)
def test_a_wrong_address_is_named(address: str) -> None:
    ended = run_mcp("--http", address)
    assert (ended.exit_code, ended.stderr) == (
        2,
        f"upscaled: --http {address}: must be HOST:PORT\n",
    )


@pytest.mark.parametrize("key", ["", "key"])
def test_wrong_usage_is_reported_before_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    def fail(*_: str) -> None:
        raise ValueError("the package mcp is not installed")

    monkeypatch.setattr("upscaled.cli.mcp.require_package", fail)
    monkeypatch.setenv("UPSCALED_MCP_API_KEY", key)
    assert run_mcp("--http", "x").exit_code == 2
    assert run_mcp("--http", "127.0.0.1:0").exit_code == (1 if key else 2)


@pytest.mark.usefixtures("with_key")
def test_a_port_that_is_in_use_is_named(service: Service) -> None:
    address = f"127.0.0.1:{service.port}"
    ended = run_mcp("--http", address)
    assert ended.exit_code == 1
    assert ended.stderr == f"upscaled: cannot listen on {address}: Address already in use\n"


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "nothing"
    ended = run_mcp("--root", str(root))
    assert ended.exit_code == 2
    assert ended.stderr == f"upscaled: --root {root}: No such file or directory\n"


@pytest.mark.parametrize("is_in_a_file", [pytest.param(False, marks=pytest.mark.slow), True])
def test_its_key_is_not_printed_with_the_settings(tmp_path: Path, is_in_a_file: bool) -> None:
    (tmp_path / "key").write_text("up_secret_of_mine\n")
    given = {"UPSCALED_MCP_API_KEY": "up_secret_of_mine"}
    if is_in_a_file:
        given = {"UPSCALED_MCP_API_KEY_FILE": str(tmp_path / "key")}
    assert load_settings(given).mcp_api_key.get_secret_value() == "up_secret_of_mine"
    assert "up_secret_of_mine" not in run_upscaled(clean_environment(**given), "config").stdout


def test_it_loads_no_torch_and_the_sdk_only_where_it_runs() -> None:
    program = (
        "import sys, upscaled.cli, upscaled.cli.mcp\n"
        "print('mcp' in sys.modules)\n"
        "import upscaled.mcp.server\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "False", "False"]


@pytest.mark.slow
def test_the_end_of_its_input_ends_it(service: Service) -> None:
    arguments: dict[str, Any] = {"env": settings_for(service), "cwd": REPOSITORY_DIR}
    done = subprocess.run(
        [*UPSCALED, "mcp"], input=b"", capture_output=True, check=False, timeout=60, **arguments
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "sig", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_a_signal_ends_it_while_it_waits_for_its_input(service: Service, sig: int) -> None:
    with subprocess.Popen(
        [*UPSCALED, "mcp"],
        cwd=REPOSITORY_DIR,
        env=settings_for(service),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(START) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "upscaled"
        process.send_signal(sig)
        assert process.wait(60) == -sig
