"""nginx and Caddy as the page sets them up, before a real service: the contract still holds."""

import io
import json
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.certificates import make_certificate
from tests.docs.conftest import PROXIES, Site, find_program, proxy
from tests.listening import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MIB = 2**20


def jpeg(side_px: int, size_bytes: int = 0) -> bytes:
    """Make a picture that application segments, which decoders pass over, make larger."""
    out = io.BytesIO()
    Image.effect_noise((side_px, side_px), 40).convert("RGB").save(out, "JPEG")
    data = out.getvalue()
    segment = b"\xff\xef\xff\xff" + b"\0" * 0xFFFD
    count = max(0, size_bytes - len(data)) // len(segment)
    return data[:2] + segment * count + data[2:]


def post(site: Site, picture: bytes, **headers: str) -> requests.Response:
    return requests.post(
        f"{site.public_url}/v1/upscale",
        headers={"X-API-KEY": site.server.key, **headers},
        files={"image": ("photo.jpg", picture)},
        data={"scale": "2"},
        timeout=120,
        verify=str(site.certificate.certificate),
    )


def test_twenty_megabytes_are_accepted_and_the_result_is_at_an_https_url(site: Site) -> None:
    picture = jpeg(96, 20 * MIB)
    assert len(picture) > 19.9 * MIB
    answer = post(site, picture)
    assert answer.status_code == 200, answer.text
    url = answer.json()["result_url"]
    assert url.startswith(f"{site.public_url}/public/result/")
    trusted = str(site.certificate.certificate)
    head = requests.head(url, timeout=30, verify=trusted)
    result = requests.get(url, timeout=30, verify=trusted)
    assert head.headers["Content-Type"] == result.headers["Content-Type"] == "image/jpeg"
    assert int(head.headers["Content-Length"]) == len(result.content)
    with Image.open(io.BytesIO(result.content)) as image:
        assert image.size == (192, 192)


TOO_LARGE = {"error": "File size too large", "error_code": "file_size_too_large"}


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_body_that_is_too_large_is_refused_by_the_service_and_not_by_the_proxy(
    version: str, site: Site, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    if (site.proxy, version) == ("caddy", "--http1.1"):
        pytest.skip("Caddy may cut such a client off, as the page says")
    picture = tmp_path / "large.jpg"
    picture.write_bytes(jpeg(96, 40 * MIB))
    command = ["curl", "--silent", version, f"{site.public_url}/v1/upscale", "-F", "scale=2"]
    command += ["-H", f"X-API-KEY: {site.server.key}", "-F", f"image=@{picture}"]
    command += ["--cacert", str(site.certificate.certificate), "-w", "\n%{http_code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    body, _, status = done.stdout.rpartition("\n")
    assert status == "400", done
    if site.proxy == "caddy" and done.returncode:  # cut off behind the status, as the page says
        assert json.dumps(TOO_LARGE, separators=(",", ":")).startswith(body), done
        return
    assert json.loads(body) == TOO_LARGE


def test_a_client_that_reads_late_gets_its_answer_from_nginx(site: Site) -> None:
    if site.proxy != "nginx":
        pytest.skip("Caddy may cut such a client off, as the page says")
    answer = post(site, jpeg(96, 40 * MIB))
    assert (answer.status_code, answer.json()) == (400, TOO_LARGE)


def test_progress_is_shown_while_the_request_runs(site: Site) -> None:
    """Buffering proxies would pass all events on at once, after the end."""
    answers: list[requests.Response] = []

    def send() -> None:
        answers.append(post(site, jpeg(800), **{"X-Request-Id": "watched-by-proxy"}))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        events, seen_while_running = _read_events(site, "watched-by-proxy", sender)
    finally:
        sender.join()
    assert answers[0].status_code == 200
    assert seen_while_running >= 2
    assert events[-1] == {"error_code": None}


def _read_events(site: Site, name: str, sender: threading.Thread) -> tuple[list[Any], int]:
    """Read all events, and count those that came while the sender was still waiting."""
    request = urllib.request.Request(
        f"{site.public_url}/v1/progress/{name}", headers={"X-API-KEY": site.server.key}
    )
    context = ssl.create_default_context(cafile=str(site.certificate.certificate))
    deadline = time.monotonic() + 60
    while True:
        try:
            stream = urllib.request.urlopen(request, timeout=60, context=context)
            break
        except urllib.error.HTTPError as error:  # not begun yet
            error.close()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    events, early = [], 0
    with stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream:
            if line.startswith(b"data: "):
                events.append(json.loads(line.removeprefix(b"data: ")))
                early += sender.is_alive()
    return events, early


def test_metrics_are_for_this_machine_alone_or_not_served(site: Site) -> None:
    answer = requests.get(
        f"{site.public_url}/metrics", timeout=30, verify=str(site.certificate.certificate)
    )
    assert answer.status_code in (200, 403)  # nginx lets this machine ask


@pytest.mark.parametrize("name", PROXIES)
def test_a_service_that_is_down_is_answered_with_an_error_of_the_contract(
    name: str, tmp_path: Path
) -> None:

    if find_program(name) is None:
        pytest.skip(f"{name} is not installed")
    certificate, port = make_certificate(tmp_path), free_port()
    with proxy(name, tmp_path, port, f"127.0.0.1:{free_port()}", certificate):
        answer = requests.get(
            f"https://localhost:{port}/v1/credits", timeout=30, verify=str(certificate.certificate)
        )
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["error_code"] == "internal_error"
