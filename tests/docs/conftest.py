"""A real service for the pages' blocks, alone and behind each proxy, and photos to send."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.certificates import Certificate, make_certificate
from tests.docs.blocks import DOCS, ROOT, read_blocks
from tests.listening import free_port, wait_listening
from tests.running import Server, serve

PROXIES = ("nginx", "caddy")


@dataclass(frozen=True)
class Site:
    """A service and how it is reached: plainly, and by TLS under `public_url`."""

    proxy: str
    server: Server
    public_url: str
    port: int
    certificate: Certificate
    photos: Path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo.jpg, and a folder of two more."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(ROOT / "scripts" / "sample" / "cat.jpg") as sample:
        small = sample.crop((100, 80, 196, 144))
    (folder / "photos" / "more").mkdir(parents=True)
    for name in ("photo.jpg", "photos/one.jpg", "photos/more/two.jpg"):
        small.save(folder / name, quality=90)
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return folder


@pytest.fixture(scope="module", params=PROXIES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photos: Path
) -> Iterator[Site]:
    """Run the service behind the proxy of its page; skip without the proxy."""
    name = request.param
    if find_program(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    certificate = make_certificate(folder)
    port = free_port()
    public_url = f"https://localhost:{port}"
    with serve(
        folder / "data",
        timeout_s=110,
        UPSCALED_PUBLIC_BASE_URL=public_url,
        UPSCALED_RATE_PER_S="100000",
        UPSCALED_RATE_BURST="100000",
        UPSCALED_SOURCE_PRIVATE_CIDRS="127.0.0.0/8",
    ) as server:
        upstream = server.url.removeprefix("http://")
        with proxy(name, folder, port, upstream, certificate):
            yield Site(name, server, public_url, port, certificate, photos)


@contextmanager
def proxy(
    name: str,
    folder: Path,
    port: int,
    upstream: str,
    certificate: Certificate,
    locations: str = "",
    upstream_block: str = "",
) -> Iterator[None]:
    """Run the proxy with the page's own configuration but for addresses and paths.

    For nginx, `locations` are put before its own, and `upstream_block` in place of its own.
    """
    (block,) = read_blocks(DOCS / "proxy.md", name)
    program = find_program(name)
    assert program is not None
    if name == "nginx":
        text = block.text.replace("    location /", f"{locations}\n    location /", 1)
        if upstream_block:
            text = upstream_block + text.partition("\n}\n")[2]
        file = _write_nginx(text, folder, port, upstream, certificate)
        command = [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    else:
        file = _write_caddy(block.text, folder, port, upstream, certificate)
        command = [program, "run", "--adapter", "caddyfile", "--config", str(file)]
    log = folder / "proxy.log"
    with log.open("wb") as output:
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        wait_listening(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait(60)


def find_program(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin")


def _write_nginx(
    text: str, folder: Path, port: int, upstream: str, certificate: Certificate
) -> Path:
    live = "/etc/letsencrypt/live/upscale.example.com"
    for old, new in (
        ("server 127.0.0.1:8000;", f"server {upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        (f"{live}/fullchain.pem", str(certificate.certificate)),
        (f"{live}/privkey.pem", str(certificate.key)),
    ):
        assert old in text
        text = text.replace(old, new)
    paths = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    # Otherwise nginx's workers run as a user that may not enter a test's folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    file.write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{paths}\n{text}\n}}\n"
    )
    return file


def _write_caddy(
    text: str, folder: Path, port: int, upstream: str, certificate: Certificate
) -> Path:
    address = "upscale.example.com {"
    assert text.startswith(address)
    assert "127.0.0.1:8000" in text
    files = f"tls {certificate.certificate} {certificate.key}"
    text = text.replace(address, f"https://localhost:{port} {{\n    {files}", 1)
    file = folder / "Caddyfile"
    ports = f"http_port {free_port()}"
    file.write_text(
        f"{{\n    admin off\n    {ports}\n    auto_https disable_redirects\n}}\n"
        + text.replace("127.0.0.1:8000", upstream)
    )
    return file


@pytest.fixture
def origin(photos: Path) -> Iterator[str]:
    """Serve the photos, and give the URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(photos))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
