"""`upscaled serve` with a certificate: its start, its renewal and its end."""

import hashlib
import re
import signal
import socket
import ssl
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.certificates import Certificate, make_certificate
from tests.listening import free_port
from tests.running import Server, clean_environment, run_upscaled, serve
from tests.service.api.waiting import wait_until


def fingerprint(server: Server) -> bytes:
    """The certificate that a new connection gets."""
    url = httpx.URL(server.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((url.host, url.port or 443), 10) as plain,
        context.wrap_socket(plain) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def serve_https(
    data_dir: Path, made: Certificate, **settings: Any
) -> AbstractContextManager[Server]:
    return serve(
        data_dir,
        is_waiting=False,
        tls=made.client_context(),
        UPSCALED_TLS_CERT=str(made.certificate),
        UPSCALED_TLS_KEY=str(made.key),
        **settings,
    )


def test_https_from_the_start_over_a_renewal_to_the_end(tmp_path: Path) -> None:
    made, spare = tmp_path / "made", tmp_path / "spare"
    made.mkdir()
    spare.mkdir()
    first = make_certificate(made)
    with serve_https(tmp_path / "data", first) as server:
        server.wait_listening()
        assert server.url.startswith("https://127.0.0.1:")
        text = "".join(server.stdout)
        assert re.search(rf"curl {server.url}/v1/upscale .*X-API-KEY: {server.key}'", text)
        with httpx.Client(
            verify=first.client_context(),
            base_url=server.url,
            limits=httpx.Limits(keepalive_expiry=None),  # else it connects anew after 5 s
        ) as client:
            headers = {"X-API-KEY": server.key}
            assert client.get("/v1/credits", headers=headers).status_code == 200
            before = fingerprint(server)
            first.key.write_text("broken")
            server.process.send_signal(signal.SIGHUP)
            server.wait_said("tls_unusable")
            assert fingerprint(server) == before
            renewed = make_certificate(spare)
            renewed.key.replace(first.key)
            renewed.certificate.replace(first.certificate)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: fingerprint(server) != before)
            # The connection that was open goes on.
            assert client.get("/v1/credits", headers=headers).status_code == 200
        assert server.stop() == 0


@pytest.mark.slow
def test_administration_on_a_port_of_its_own_has_the_certificate_too(tmp_path: Path) -> None:
    made, port = make_certificate(tmp_path), free_port()
    keys = f"ops:{hashlib.sha256(b'secret').hexdigest()}"
    settings = {"UPSCALED_ADMIN_KEYS": keys, "UPSCALED_ADMIN_PORT": str(port)}
    with serve_https(tmp_path / "data", made, **settings) as server:
        server.wait_listening()
        url = f"https://127.0.0.1:{port}/admin/v1/keys"
        with httpx.Client(verify=made.client_context()) as client:
            assert client.get(url).status_code == 401
            answer = client.get(url, headers={"Authorization": "Bearer secret"})
            assert [key["name"] for key in answer.json()] == ["first"]
        assert server.stop() == 0


@pytest.mark.slow
def test_a_renewal_is_seen_without_a_signal(tmp_path: Path) -> None:
    (tmp_path / "spare").mkdir()
    first = make_certificate(tmp_path)
    with serve_https(tmp_path / "data", first) as server:
        server.wait_listening()
        before = fingerprint(server)
        renewed = make_certificate(tmp_path / "spare")
        renewed.key.replace(first.key)
        renewed.certificate.replace(first.certificate)
        wait_until(lambda: fingerprint(server) != before)


def test_files_that_cannot_be_used_stop_the_start_with_the_setting(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    made.key.unlink()
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(tmp_path / "data"),
        UPSCALED_TLS_CERT=str(made.certificate),
        UPSCALED_TLS_KEY=str(made.key),
    )
    ended = run_upscaled(environment, "serve", "--port", "0", is_checked=False)
    assert ended.returncode == 1
    assert ended.stderr == f"upscaled: UPSCALED_TLS_KEY={made.key}: No such file or directory\n"
    assert not (tmp_path / "data").exists()
