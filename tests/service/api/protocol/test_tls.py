"""HTTP/1.1 over the service's own TLS: what clients see, and what TLS adds."""

import asyncio
import json
import logging
import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.certificates import Certificate
from tests.service.api.executors import HangingExecutor
from tests.service.api.pictures import picture
from tests.service.api.raw import GET, Connection, connections_of
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.api.protocol import http1
from upscaled.api.protocol.http1 import ContractProtocol
from upscaled.api.protocol.tls import TlsTransport


def test_curl_uploads_files_up_to_the_limit_on_one_connection(
    tls_service: Service, certificate: Certificate, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    largest, larger = tmp_path / "largest", tmp_path / "larger"
    largest.write_bytes(bytes(tls_service.settings.max_file_bytes))
    larger.write_bytes(bytes(tls_service.settings.max_file_bytes + 1))
    good = tmp_path / "good"
    good.write_bytes(picture())
    command = ["curl", "--silent", "--cacert", str(certificate.certificate)]
    for file in (largest, good, larger):
        command += ["-H", f"X-API-KEY: {tls_service.key}", "-F", f"image=@{file}", "-F", "scale=2"]
        command += ["-w", "\n%{http_version} %{num_connects} %{http_code}\n"]
        command += [f"{tls_service.url}/v1/upscale", "--next", "--silent"]
        command += ["--cacert", str(certificate.certificate)]
    output = subprocess.run(command[:-4], capture_output=True, check=True, timeout=60).stdout
    bodies = output.decode().splitlines()
    assert json.loads(bodies[0])["error_code"] == "malformed_image"
    assert bodies[1] == "1.1 1 400"
    assert json.loads(bodies[2])["result_url"].startswith(f"{tls_service.url}/public/result/")
    assert bodies[3] == "1.1 0 200"
    assert json.loads(bodies[4])["error_code"] == "file_size_too_large"
    assert bodies[5] == "1.1 0 400"


def test_httpx_gets_a_picture_and_an_https_url_that_holds_it(
    tls_service: Service, certificate: Certificate
) -> None:
    form = {"files": {"image": picture()}, "data": {"scale": "2"}, "headers": tls_service.headers}
    with httpx.Client(verify=certificate.client_context(), base_url=tls_service.url) as client:
        url = client.post("/v1/upscale", **form).json()["result_url"]  # type: ignore[arg-type]
        assert url.startswith("https://")
        stored = client.get(url)
    assert stored.http_version == "HTTP/1.1"
    assert stored.headers["content-type"] == "image/jpeg"
    assert stored.content.endswith(b"\xff\xd9")


def test_alpn_offers_http_1_1_alone(tls_service: Service, certificate: Certificate) -> None:
    context = certificate.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((tls_service.host, tls_service.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=tls_service.host) as connection,
    ):
        assert connection.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("version", "is_spoken"), [("TLSv1.1", False), ("TLSv1.2", True), ("TLSv1.3", True)]
)
def test_tls_begins_at_1_2(
    tls_service: Service, certificate: Certificate, version: str, is_spoken: bool
) -> None:
    option = "-" + version.lower().replace("v", "").replace(".", "_")
    client = subprocess.run(
        ["openssl", "s_client", "-connect", f"{tls_service.host}:{tls_service.port}", option,
         "-cipher", "DEFAULT@SECLEVEL=0", "-CAfile", str(certificate.certificate)],
        input=b"", capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (client.returncode == 0) is is_spoken, client.stderr


def test_a_request_in_records_of_one_byte_is_read(tls_service: Service) -> None:
    with Connection(tls_service) as connection:
        for byte in GET:
            connection.send(bytes([byte]))
        assert connection.receive().status == 200


def test_plain_http_is_answered_that_this_is_https_and_closed(
    tls_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = len(connections_of(tls_service))
    answer = httpx.get(f"http://{tls_service.host}:{tls_service.port}/healthz")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "This port serves https",
        "error_code": "invalid_request_body",
    }
    wait_until(lambda: len(connections_of(tls_service)) <= before)
    assert [each for each in caplog.records if "HTTP_REQUEST" in each.getMessage()]


def test_bytes_that_are_no_tls_close_the_connection_alone(
    tls_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection(tls_service) as other:
        with socket.create_connection((tls_service.host, tls_service.port), 5) as connection:
            connection.sendall(bytes(range(256)))
            while connection.recv(1000):  # an alert, and the end
                pass
        other.send(GET)
        assert other.receive().status == 200
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_handshake_that_is_never_finished_is_cut_off_and_counts(
    make_service: MakeService, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "HEAD_TIMEOUT_S", 0.5)
    service = make_service(certificate=certificate)
    with socket.create_connection((service.host, service.port), 5) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00")  # the header of a record that never comes
        wait_until(lambda: len(connections_of(service)) == 1)
        assert connection.recv(1) == b""


def test_connections_without_a_handshake_lock_out_no_other_client(
    make_service: MakeService, certificate: Certificate
) -> None:
    service = make_service(max_connections=20, certificate=certificate)
    held = [socket.create_connection((service.host, service.port), 5) for _ in range(40)]
    with Connection(service) as connection:
        connection.send(GET)
        assert connection.receive().status == 200
    assert len(connections_of(service)) <= 20
    for each in held:
        each.close()


def test_a_connection_too_many_is_closed_before_its_handshake(
    make_service: MakeService, certificate: Certificate
) -> None:
    executor = HangingExecutor()
    service = make_service(executor, max_connections_per_address=1, trusted_proxies="none",
                           certificate=certificate)  # fmt: skip
    with Connection(service) as busy:
        busy.send_upload()
        assert executor.has_begun.wait(60)
        with pytest.raises(OSError):
            Connection(service)


class HandMadeTls(Connection):
    """TLS by hand: its end is sent apart from that of TCP."""

    def __init__(self, service: Service) -> None:
        assert service.certificate is not None
        self.service, self.key = service, service.key
        self.socket = socket.create_connection((service.host, service.port), timeout=60)
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = service.certificate.client_context().wrap_bio(
            self._to_client, self._to_server, server_hostname=service.host
        )
        while not _is_done(self._tls):
            self.socket.sendall(self._to_server.read())
            self._to_client.write(self.socket.recv(65536))

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self.socket.sendall(self._to_server.read())

    def end_tls(self) -> None:
        with suppress(ssl.SSLError):  # the server has mostly not ended its own side
            self._tls.unwrap()
        self.socket.sendall(self._to_server.read())

    def receive_all(self) -> bytes:
        while data := self.socket.recv(65536):
            self._to_client.write(data)
        return self._tls.read(65536)


def test_a_client_that_ends_its_side_of_tls_is_answered(tls_service: Service) -> None:
    """`openssl s_client` cannot: TLS 1.3 lets each side end by itself (RFC 8446, 6.1)."""
    with HandMadeTls(tls_service) as connection:
        connection.send(GET)
        connection.end_tls()
        assert connection.receive_all().startswith(b"HTTP/1.1 200 OK\r\n")


def test_bytes_behind_a_clients_end_of_tls_are_not_kept(
    make_service: MakeService, certificate: Certificate
) -> None:
    executor = HangingExecutor()
    service = make_service(executor, certificate=certificate)
    with HandMadeTls(service) as connection:
        connection.send_upload()
        connection.end_tls()
        assert executor.has_begun.wait(60)
        connection.socket.sendall(bytes(40_000_000))  # more than the kernel keeps
        (http,) = connections_of(service)._open
        assert isinstance(http, ContractProtocol)
        assert isinstance(http._transport, TlsTransport)
        assert http._transport._incoming.pending < 1_000_000


def test_a_client_that_ends_tls_after_a_refusal_is_no_failure(
    tls_service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = len(connections_of(tls_service))
    with HandMadeTls(tls_service) as connection:
        connection.send(b"nonsense\r\n\r\n")
        assert connection.receive_all().startswith(b"HTTP/1.1 400 ")
        connection.end_tls()
        wait_until(lambda: len(connections_of(tls_service)) <= before)
    assert "TLS failed" not in caplog.text


def _is_done(client: ssl.SSLObject) -> bool:
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


async def test_a_refused_request_is_answered_before_its_body_is_read(
    tls_service: Service, certificate: Certificate
) -> None:
    context = certificate.client_context()
    # Streams read and write one TLS connection at once, which threads may not.
    reader, writer = await asyncio.open_connection(tls_service.host, tls_service.port, ssl=context)
    head = "POST /v1/upscale HTTP/1.1\r\nHost: x\r\nX-API-KEY: wrong\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 30000000\r\n\r\n"
    writer.write(head.encode() + bytes(1_000_000))
    async with asyncio.timeout(60):
        answer = await reader.readuntil(b'"invalid_auth_token"')
    assert answer.startswith(b"HTTP/1.1 401 ")
    writer.transport.abort()
