"""The real application behind a real uvicorn on loopback, in a thread of the test's process."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import uvicorn
from fastapi import FastAPI

from tests.certificates import Certificate
from tests.databases import make_tables
from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture
from upscaled.api.app import create_app
from upscaled.api.protocol.http1 import ContractProtocol
from upscaled.api.protocol.tls import make_tls_factory
from upscaled.cli.server import KEEP_ALIVE_S
from upscaled.config import Settings, load_settings
from upscaled.process.certificate import CertificateFiles, ServerCertificate
from upscaled.state import Clocks, State, open_state

# Limits that a test does not set are out of its way.
ROOMY = {"rate_per_s": 100_000, "rate_burst": 100_000}


@dataclass
class Service:
    """A running service. `host` and `port` are where; `key` is an API key that works."""

    app: FastAPI
    settings: Settings
    state: State
    executor: ResizingExecutor
    host: str
    port: int
    key: str
    certificate: Certificate | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-KEY": self.key}

    def upload(self, image: bytes | None = None, **changes: Any) -> requests.Response:
        """A good upload of one picture, with changes."""
        options: dict[str, Any] = {
            "headers": self.headers,
            "data": {"scale": "2"},
            "files": {"image": ("photo.png", picture() if image is None else image)},
            "timeout": 30,
        }
        return requests.post(f"{self.url}/v1/upscale", **{**options, **changes})

    def send_json(self, body: Any, **changes: Any) -> requests.Response:
        options: dict[str, Any] = {"headers": self.headers, "json": body, "timeout": 30}
        return requests.post(f"{self.url}/v1/upscale", **{**options, **changes})

    def get(self, path: str, **changes: Any) -> requests.Response:
        return requests.get(self.url + path, **{"timeout": 30, **changes})

    def balance(self) -> int:
        return self.state.credits.show("test")

    def stored_files(self) -> list[str]:
        """Return the names of stored results, without the files of the server's own check."""
        paths = [path for path in self.settings.results_dir.rglob("*") if path.is_file()]
        return [path.name for path in paths if path.parent.name != "trial"]


MakeService = Callable[..., Service]


class PromptServer(uvicorn.Server):
    """Ends as soon as `should_exit` is set: uvicorn looks for that ten times a second only."""

    _is_ending: asyncio.Event | None = None

    async def main_loop(self) -> None:
        self._loop, self._is_ending = asyncio.get_running_loop(), asyncio.Event()
        ticking = asyncio.create_task(super().main_loop())
        ending = asyncio.create_task(self._is_ending.wait())
        await asyncio.wait({ticking, ending}, return_when=asyncio.FIRST_COMPLETED)
        ticking.cancel()
        ending.cancel()

    def end(self) -> None:
        """End the server from another thread."""
        self.should_exit = True
        if self._is_ending is not None:
            self._loop.call_soon_threadsafe(self._is_ending.set)


@contextmanager
def serve(
    data_dir: Path,
    executor: ResizingExecutor | None = None,
    *,
    credits: int = 0,
    clock: Any = Clocks(),  # noqa: B008  (frozen)
    stop_after_s: int = 5,
    restarts: int = 0,
    key: str = "",
    certificate: Certificate | None = None,
    **settings: Any,
) -> Iterator[Service]:
    """Run the service; `key`: one that its database has already; `certificate`: for https."""
    table = load_settings({}, data_dir=data_dir, **{**ROOMY, **settings})
    executor = executor or ResizingExecutor()
    if "database_url" not in settings and not table.data_dir.exists():
        make_tables(table.data_dir)
    clocks = clock if isinstance(clock, Clocks) else Clocks(clock, clock, clock)
    with open_state(table, clocks) as state:
        key = key or state.keys.create("test", credits=credits)
        app = create_app(table, executor, state, restarts)
        with run_app(app, stop_after_s, certificate) as port:
            yield Service(app, table, state, executor, "127.0.0.1", port, key, certificate)


@contextmanager
def run_app(
    app: FastAPI, stop_after_s: int = 5, certificate: Certificate | None = None
) -> Iterator[int]:
    """Run `app` as `upscaled serve` does; gives the port.

    `stop_after_s`: how long its end waits for requests under way before it cancels them.
    """
    protocol: Any = ContractProtocol
    if certificate is not None:
        files = CertificateFiles(certificate.certificate, certificate.key)
        protocol = make_tls_factory(ServerCertificate(files))
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=stop_after_s,
    )
    server = PromptServer(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the application did not start")
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.end()
        thread.join(60)
