import gzip
import math
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.pictures import picture
from tests.service.api.raw import Connection, seconds_since
from tests.service.api.serving import MakeService, Service
from upscaled.api.protocol.http1 import BODY_STALL_S
from upscaled.api.request.fields import Fields, UnknownField
from upscaled.api.request.reader import OVERHEAD_BYTES, check_fields, parse_scale
from upscaled.errors import InvalidParameter, MissingParameter

URL = "https://example.com/a.jpg"


def test_image_wins_over_image_url() -> None:
    assert check_fields(Fields(b"photo", "nonsense", "4")) == (b"photo", None, 4)
    assert check_fields(Fields(None, URL, 2)) == (None, URL, 2)


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        (Fields(None, None, None), "image or image_url, scale"),
        (Fields(None, None, 3), "image or image_url"),
        (Fields("text", None, None), "scale"),
        (Fields(None, "nonsense", None), "scale"),
    ],
)
def test_missing_parameters_are_reported_before_invalid_ones(fields: Fields, missing: str) -> None:
    with pytest.raises(MissingParameter) as refused:
        check_fields(fields)
    assert refused.value.public_text == f"Missing parameter: {missing}"


@pytest.mark.parametrize(
    "fields",
    [Fields("text", None, 2), Fields("text", URL, 2), Fields(b"x", None, 3), Fields(None, 5, 2)],
)
def test_invalid_fields_are_refused(fields: Fields) -> None:
    with pytest.raises(InvalidParameter):
        check_fields(fields)


def test_a_missing_field_is_named_with_the_unknown_name_it_was_sent_under() -> None:
    unknown = (UnknownField("file", is_file=True), UnknownField("factor"))
    with pytest.raises(MissingParameter) as refused:
        check_fields(Fields(None, None, None, unknown))
    assert refused.value.public_text == (
        "Missing parameter: image or image_url, scale"
        "; instead of file send image; instead of factor send scale"
    )
    assert check_fields(Fields(b"photo", None, 2, unknown)) == (b"photo", None, 2)
    with pytest.raises(InvalidParameter):
        check_fields(Fields(None, b"x" * 100_000, 2))


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


def test_small_parts_count_together_against_the_size_limit(service: Service) -> None:
    part = b'Content-Disposition: form-data; name="other"\r\n\r\n' + bytes(1000)
    body = form(*[part] * 27_000, SCALE, file_part(picture()))
    assert len(body) > LIMIT_BYTES + OVERHEAD_BYTES
    headers = service.headers | {"Content-Type": "multipart/form-data; boundary=XX"}
    for data in (body, chunked(body)):
        answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=data, timeout=30)
        assert_error(answer, 400, "file_size_too_large")


@pytest.mark.parametrize("length", ["99999999999999999999999999", str(LIMIT_BYTES * 2)])
def test_a_declared_length_is_refused_before_a_byte_is_sent(service: Service, length: str) -> None:
    with Connection(service) as connection:
        started = time.monotonic()
        connection.send_head(JSON, f"Content-Length: {length}")
        answer = connection.receive()
        assert seconds_since(started) < BODY_STALL_S / 2
        assert answer.status == 400
        assert b"file_size_too_large" in answer.body or b"Invalid HTTP request" in answer.body


def test_an_endless_body_is_not_held_in_memory(service: Service) -> None:
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


def test_a_body_over_the_time_limit_is_refused_though_its_bytes_arrive(
    make_service: MakeService,
) -> None:
    """The limit is on the whole body, not on the pause between two bytes."""
    service = make_service(body_timeout_s=0.5)
    with Connection(service) as connection:
        started = time.monotonic()
        connection.send_head(JSON, "Content-Length: 100")
        for _ in range(8):
            connection.send(b" ")
            time.sleep(0.1)
        answer = connection.receive()
        answer.assert_error(400, "invalid_request_body")
        assert seconds_since(started) < BODY_STALL_S / 2
        assert answer.headers["connection"] == "close"
        assert connection.is_closed()


def test_a_slow_body_within_the_time_limit_is_accepted(make_service: MakeService) -> None:
    service = make_service(body_timeout_s=20)
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
        assert seconds_since(started) < BODY_STALL_S / 2
    finally:
        for connection in slow:
            connection.socket.close()


@pytest.mark.parametrize("headers", [[], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]])
def test_no_body_at_all_is_invalid(service: Service, headers: list[str]) -> None:
    with Connection(service) as connection:
        connection.send_head(JSON, *headers)
        if "chunked" in "".join(headers):
            connection.send(b"0\r\n\r\n")
        connection.receive().assert_error(400, "invalid_request_body")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "identity, gzip"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"image_url": "http://10.0.0.1/", "scale": 2}'),
        ("multipart/form-data; boundary=XX", form(SCALE, file_part(picture()))),
    ],
)
def test_a_compressed_body_is_refused_for_that(
    service: Service, content_type: str, body: bytes, coding: str
) -> None:
    headers = service.headers | {"Content-Type": content_type, "Content-Encoding": coding}
    url = f"{service.url}/v1/upscale"
    answer = requests.post(url, headers=headers, data=gzip.compress(body), timeout=30)
    assert "Content-Encoding" in assert_error(answer, 400, "invalid_request_body")


def test_a_body_that_is_only_said_to_be_compressed_is_read(service: Service) -> None:
    """Some clients name a character set in Content-Encoding, or forget it behind a proxy."""
    for coding in ("utf-8", "identity", "gzip"):
        headers = service.headers | {"Content-Encoding": coding}
        assert service.upload(headers=headers).status_code == 200
    assert_error(
        service.upload(headers=service.headers | {"Content-Encoding": "utf-8"}, data={}),
        400,
        "missing_parameter",
    )


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", "2.00"])
def test_every_spelling_of_scale_2_is_parsed(value: Any) -> None:
    scale = parse_scale(value)
    assert scale == 2
    assert type(scale) is int


@pytest.mark.parametrize(
    "value",
    [
        *(0, 1, 3, 5, -2, 8, 2.27, 2.0000001, math.nan, math.inf, -math.inf, 10**400),
        *(True, False, [], [2], {}, {"2": 2}, b"2", b""),
        *(" 2 ", "2 ", " 2", "2\n", "２", "٢", "²", "2.", "2,0", "+2", "02", "2e0", "2x", "x2"),
        *("0x2", "two", "nan", "true", "2.01", "2.5", "3", "22", "2" * 100_000),
    ],
)
def test_any_other_scale_is_invalid(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="scale must be 2 or 4"):
        parse_scale(value)
