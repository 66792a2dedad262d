"""Good requests with a few bytes changed: whatever comes back is an answer of the contract."""

import contextlib
import json
import random
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.service.api.pictures import picture
from tests.service.api.serving import Service

SILENCE_S = 0.5
STATUSES = {200, 400, 401, 403, 404, 405, 429}


def good_requests(service: Service) -> list[bytes]:
    key = f"Host: x\r\nX-API-KEY: {service.key}\r\n".encode()
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        + picture()
        + b"\r\n--XX--\r\n"
    )
    form = b"Content-Type: multipart/form-data; boundary=XX\r\nAccept: image/*\r\n"
    post = b"POST /v1/upscale HTTP/1.1\r\n" + key
    own = json.dumps({"image_url": "http://127.0.0.1:1/public/result/x", "scale": 2}).encode()
    length, own_length = str(len(body)).encode(), str(len(own)).encode()
    return [
        post + form + b"Content-Length: " + length + b"\r\n\r\n" + body,
        post
        + form
        + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)
        + body
        + b"\r\n0\r\n\r\n",
        post
        + b"Content-Type: application/json\r\nContent-Length: "
        + own_length
        + b"\r\n\r\n"
        + own,
        b"GET /v1/credits HTTP/1.1\r\n" + key + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HEAD /public/result/00000000-0000-4000-8000-000000000000.png HTTP/1.1\r\n"
        + key
        + b"\r\n",
    ]


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(changed), 400))
        match chance.randrange(4):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                changed[at:at] = chance.randbytes(chance.randint(1, 6))
            case 2:
                del changed[at : at + chance.randint(1, 12)]
            case _:
                changed[at:at] = changed[at : at + 40]
    return bytes(changed)


def exchange(service: Service, data: bytes, silence_s: float = SILENCE_S) -> bytes:
    """Return what comes back until the first response is complete or the server is silent."""
    with socket.create_connection((service.host, service.port), timeout=60) as connection:
        connection.sendall(data)
        received = b""
        connection.settimeout(silence_s)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while not is_whole(received, data) and (chunk := connection.recv(65536)):
                received += chunk
        return received


def is_whole(received: bytes, request: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if end and request.startswith(b"HEAD "):
        return True
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return length is not None and len(body) >= int(length[1])


def check(received: bytes) -> int | None:
    """Return the status of the first response, checked against the contract; None without one."""
    head, _, body = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    if not head:
        return None
    status = int(head.split(b" ")[1])
    assert status in STATUSES, received
    assert b"\r\nx-request-id: " in head.lower(), received
    is_error_with_body = status >= 400 and body and not body.startswith(b"HTTP/1.1")
    if is_error_with_body:
        assert b"\r\ncontent-type: application/json\r\n" in head.lower() + b"\r\n", received
        first, _ = json.JSONDecoder().raw_decode(body.decode())
        assert set(first) == {"error", "error_code"}
    return status


def run(service: Service, seed: int) -> list[int | None]:
    chance, originals = random.Random(seed), good_requests(service)
    requests = [mutate(chance.choice(originals), chance) for _ in range(100)]
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda data: check(exchange(service, data)), requests))


def test_the_requests_have_the_expected_status_before_they_are_mutated(service: Service) -> None:
    answers = [check(exchange(service, each, 60)) for each in good_requests(service)]
    assert answers == [200, 200, 400, 200, 404]


def test_every_response_to_a_mutated_request_is_in_the_contract(service: Service) -> None:
    assert {200, 400, 401} <= set(run(service, 0))
    assert service.get("/healthz").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 41))
def test_thousands_of_mutated_requests_get_answers_of_the_contract(
    service: Service, seed: int
) -> None:
    run(service, seed)
    assert service.get("/healthz").status_code == 200
