"""Limits of size and time on the request body, with bytes on a real socket."""

import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.pictures import picture, picture_of_bytes
from tests.service.api.raw import Connection, seconds_since
from tests.service.api.serving import Service
from upscaled.api.body.reading import OVERHEAD_BYTES

LIMIT_BYTES = 25 * 1024 * 1024
JSON = "Content-Type: application/json"


def form(*parts: bytes) -> bytes:
    return b"".join(b"--XX\r\n" + each + b"\r\n" for each in parts) + b"--XX--\r\n"


def file_part(data: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data


SCALE = b'Content-Disposition: form-data; name="scale"\r\n\r\n2'
FORM = "Content-Type: multipart/form-data; boundary=XX"


def chunked(data: bytes, chunk_bytes: int = 1 << 18) -> Iterator[bytes]:
    """Sent as Transfer-Encoding: chunked by `requests`."""
    for start in range(0, len(data), chunk_bytes):
        yield data[start : start + chunk_bytes]


def test_25_mb_pass_and_a_byte_more_does_not(service: Service) -> None:
    assert service.upload(picture_of_bytes(LIMIT_BYTES)).status_code == 200
    answer = service.upload(picture_of_bytes(LIMIT_BYTES + 1))
    assert assert_error(answer, 400, "file_size_too_large") == "File size too large"


def test_the_same_without_a_declared_length(service: Service) -> None:
    headers = service.headers | {"Content-Type": "multipart/form-data; boundary=XX"}
    for size_bytes, status in ((LIMIT_BYTES, 200), (LIMIT_BYTES + 1, 400)):
        body = form(SCALE, file_part(picture_of_bytes(size_bytes)))
        answer = requests.post(
            f"{service.url}/v1/upscale", headers=headers, data=chunked(body), timeout=30
        )
        assert answer.status_code == status, answer.text
    assert_error(answer, 400, "file_size_too_large")


def test_many_small_parts_count_together(service: Service) -> None:
    part = b'Content-Disposition: form-data; name="other"\r\n\r\n' + bytes(1000)
    body = form(*[part] * 27_000, SCALE, file_part(picture()))
    assert len(body) > LIMIT_BYTES + OVERHEAD_BYTES
    headers = service.headers | {"Content-Type": "multipart/form-data; boundary=XX"}
    for data in (body, chunked(body)):
        answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=data, timeout=30)
        assert_error(answer, 400, "file_size_too_large")


def test_a_large_json_is_too_large_as_well(service: Service) -> None:
    answer = service.send_json({"image": "A" * (LIMIT_BYTES + OVERHEAD_BYTES), "scale": 2})
    assert_error(answer, 400, "file_size_too_large")
    assert_error(
        service.send_json({"image": "A" * 20_000_000, "scale": 2}), 400, "missing_parameter"
    )


@pytest.mark.parametrize("length", ["99999999999999999999999999", str(LIMIT_BYTES * 2)])
def test_a_declared_length_is_refused_before_a_byte_is_sent(service: Service, length: str) -> None:
    with Connection(service) as connection:
        started = time.monotonic()
        connection.send_head(JSON, f"Content-Length: {length}")
        answer = connection.receive()
        assert seconds_since(started) < 1
        assert answer.status == 400
        assert b"file_size_too_large" in answer.body or b"Invalid HTTP request" in answer.body


def test_an_endless_body_is_not_kept(service: Service) -> None:
    """No more than the limit is held in memory, whatever is sent."""
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    with Connection(service) as connection:
        connection.send_head(FORM, "Transfer-Encoding: chunked")
        block = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        sent = 0
        try:
            for _ in range(500):
                connection.send(block)
                sent += 1
        except (ConnectionError, TimeoutError):
            pass
    assert 25 < sent < 200
    assert process.memory_info().rss - before_bytes < 80 * 1024 * 1024


def test_a_slow_body_is_given_up(make_service: Callable[..., Service]) -> None:
    service = make_service(body_timeout_s=0.3)
    with Connection(service) as connection:
        connection.send_head(JSON, "Content-Length: 100")
        connection.send(b"{")
        started = time.monotonic()
        answer = connection.receive()
        answer.assert_error(400, "invalid_request_body")
        assert 0.1 < seconds_since(started) < 2
        assert answer.headers["connection"] == "close"
        assert connection.is_closed(within_s=4)


def test_so_is_one_that_dribbles(make_service: Callable[..., Service]) -> None:
    """The limit is on the whole body, not on the pause between two bytes."""
    service = make_service(body_timeout_s=0.5)
    with Connection(service) as connection:
        connection.send_head(JSON, "Content-Length: 100")
        for _ in range(8):
            connection.send(b" ")
            time.sleep(0.1)
        connection.receive().assert_error(400, "invalid_request_body")


def test_a_body_in_time_is_taken(make_service: Callable[..., Service]) -> None:
    service = make_service(body_timeout_s=5)
    body = form(SCALE, file_part(picture()))
    with Connection(service) as connection:
        connection.send_head(FORM, f"Content-Length: {len(body)}")
        for start in range(0, len(body), 40):
            connection.send(body[start : start + 40])
            time.sleep(0.01)
        assert connection.receive().status == 200


def test_many_slow_bodies_do_not_hold_up_a_quick_one(service: Service) -> None:
    slow = [Connection(service) for _ in range(50)]
    try:
        for connection in slow:
            connection.send_head(JSON, "Content-Length: 100")
            connection.send(b"{")
        started = time.monotonic()
        assert service.upload().status_code == 200
        assert seconds_since(started) < 2
    finally:
        for connection in slow:
            connection.socket.close()


@pytest.mark.parametrize(
    "headers",
    [[], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]],
)
def test_no_body_at_all_is_invalid(service: Service, headers: list[str]) -> None:
    with Connection(service) as connection:
        connection.send_head(JSON, *headers)
        if "chunked" in "".join(headers):
            connection.send(b"0\r\n\r\n")
        connection.receive().assert_error(400, "invalid_request_body")
