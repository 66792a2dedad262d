"""Every header that is read, as long as a head may be and filled with what slows patterns down."""

import time

import pytest

from tests.service.api.raw import Connection
from tests.service.api.serving import Service

HEADERS = [
    *("X-API-KEY", "X-Request-Id", "Accept", "Content-Type", "Host", "Expect", "Connection"),
    *("Cookie", "Range", "If-None-Match", "If-Modified-Since", "Accept-Encoding", "Authorization"),
    *("traceparent", "tracestate", "Forwarded", "X-Forwarded-For", "Origin", "Referer", "Date"),
]
FILLINGS = [
    *(" ", "\t", "; ", ", ", "a", "0", "9", "-", ".", "%", "%2", "=", '"', '\\"', "a=b; ", "a/b, "),
    *("a/b;q=0.1, ", "bytes=0-1,", "00-", "upk_", "multipart/form-data; ", "[", ":", "@", "\u00ff"),
]
MAX_VALUE_BYTES = 50_000


@pytest.mark.parametrize("name", HEADERS)
def test_a_long_header_takes_no_time(service: Service, name: str) -> None:
    """All fillings of one header, client and service together."""
    started = time.process_time()
    for filling in FILLINGS:
        value = filling * (MAX_VALUE_BYTES // len(filling)) + "@"
        check_answered(service, ask(service, name, value))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "filling", ["/", "a", "%", "%2f", "../", "?", "&a=b", "a=&", "%00", "{", "é"]
)
def test_a_long_path_takes_no_time(service: Service, filling: str) -> None:
    started = time.process_time()
    for before in ("/", "/?", "/v1/upscale/", "/v1/upscale?", "/public/result/"):
        with Connection(service) as connection:
            path = before + filling * (MAX_VALUE_BYTES // len(filling))
            connection.send_head(method="GET", path=path)
            check_answered(service, connection.receive().status)
    assert time.process_time() - started < 2


def test_many_headers_take_no_time(service: Service) -> None:
    started = time.process_time()
    for line in ("a:b", "Accept: a/b", "Accept: image/*, a/b;q=0.1", "Cookie: a", "X-API-KEY: a"):
        with Connection(service) as connection:
            connection.send_head(
                *[line] * (MAX_VALUE_BYTES // (len(line) + 2)), "Content-Length: 0"
            )
            check_answered(service, connection.receive().status)
    assert time.process_time() - started < 2


def ask(service: Service, name: str, value: str) -> int:
    """A good JSON upload with one header more, or in place of its own; gives the status."""
    body = b'{"image_url": "http://127.0.0.1:1/", "scale": 2}'
    lines = {
        "Host": "x",
        "X-API-KEY": service.key,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        name: value,
    }
    head = "\r\n".join(["POST /v1/upscale HTTP/1.1", *(f"{n}: {v}" for n, v in lines.items())])
    with Connection(service) as connection:
        connection.send(head.encode("latin-1") + b"\r\n\r\n" + body)
        return connection.receive().status


def check_answered(service: Service, status: int) -> None:
    assert status in (200, 400, 401, 404, 405), status
    assert service.get("/healthz").status_code == 200
