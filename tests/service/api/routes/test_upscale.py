import json
import re
import uuid

import pytest
import requests

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.executors import FailingExecutor
from tests.service.api.pictures import picture, size_of
from tests.service.api.raw import Connection
from tests.service.api.serving import MakeService, Service
from tests.service.image.jpeg_samples import photograph, save_jpeg
from tests.service.image.steps import count_reading
from upscaled.api.upscale_steps import check_size
from upscaled.config import load_settings
from upscaled.errors import (
    InternalError,
    InvalidParameter,
    MalformedImage,
    RateLimitExceeded,
    ResolutionTooHigh,
)
from upscaled.image.types import Header
from upscaled.state import RateLimit

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIMING = r"queue;dur=1\.0, decode;dur=2\.0, network;dur=250\.0, encode;dur=3\.0"


# What a success looks like.


@pytest.mark.parametrize("scale", ["2", "4", "2.0"])
def test_an_upload_is_answered_with_a_url(service: Service, scale: str) -> None:
    answer = service.upload(data={"scale": scale})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"result_url"}
    url = answer.json()["result_url"]
    assert re.fullmatch(rf"{service.url}/public/result/{UUID4}\.jpg", url)
    assert re.fullmatch(TIMING, answer.headers["Server-Timing"])
    assert_request_id(answer)
    result = requests.get(url, timeout=60)
    assert size_of(result.content) == (80 * int(float(scale)), 64 * int(float(scale)))


def test_the_front_end_sniffs_an_upload_and_parses_its_header_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_reading(monkeypatch.setattr)
    assert service.upload(save_jpeg(photograph(80, 96))).status_code == 200
    assert counts == {"sniffed": 1, "header parsed": 1}


def test_an_upload_with_accept_image_is_answered_with_the_image(service: Service) -> None:
    answer = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert size_of(answer.content) == (160, 128)
    assert re.fullmatch(TIMING, answer.headers["Server-Timing"])
    assert_request_id(answer)


def test_a_valid_request_id_is_kept_and_passed_to_the_worker(service: Service) -> None:
    mine = f"mine-{uuid.uuid4()}"
    answer = service.upload(headers=service.headers | {"X-Request-Id": mine})
    assert answer.headers["X-Request-Id"] == mine
    assert service.executor.requests[-1].request_id == mine
    other = service.upload(headers=service.headers | {"X-Request-Id": "not sane"})
    assert uuid.UUID(other.headers["X-Request-Id"]).version == 4


def test_the_worker_is_sent_the_upright_size(service: Service) -> None:
    service.upload(picture(100, 70), data={"scale": "4"})
    work = service.executor.requests[-1]
    assert (work.scale, work.width_px, work.height_px) == (4, 100, 70)


def test_the_public_base_url_begins_every_result_url(make_service: MakeService) -> None:
    service = make_service(public_base_url="https://upscale.example.com/images/")
    url = service.upload().json()["result_url"]
    assert re.fullmatch(rf"https://upscale\.example\.com/images/public/result/{UUID4}\.jpg", url)


def test_without_a_public_base_url_result_urls_begin_with_the_called_address(
    service: Service,
) -> None:
    called = service.upload(headers=service.headers | {"Host": "upscale.example.com:8443"})
    assert called.json()["result_url"].startswith("http://upscale.example.com:8443/public/result/")
    forwarded = service.headers | {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil"}
    assert service.upload(headers=forwarded).json()["result_url"].startswith(service.url + "/")


def test_a_host_with_an_impossible_port_is_not_in_the_result_url(service: Service) -> None:
    answer = service.upload(headers=service.headers | {"Host": "x:99999"})
    assert answer.json()["result_url"].startswith(service.url + "/public/result/")


# Own results as a source.


def test_a_url_with_a_result_path_and_a_forbidden_host_is_refused(service: Service) -> None:
    for host in ("127.0.0.2:49999", "10.0.0.1", "169.254.169.254"):
        url = f"http://{host}/public/result/{uuid.uuid4()}.jpg"
        answer = service.send_json({"image_url": url, "scale": 2})
        assert_error(answer, 400, "invalid_parameter")


def test_the_size_limit_holds_for_own_results(make_service: MakeService) -> None:
    service = make_service(max_file_bytes=1024)
    url = service.upload(picture(160, 160)).json()["result_url"]
    assert int(requests.head(url, timeout=60).headers["Content-Length"]) > 1024
    assert_error(service.send_json({"image_url": url, "scale": 2}), 400, "file_size_too_large")


@pytest.mark.parametrize("around", [("", " "), ("", "\t"), (" ", ""), (" \t ", " \t ")])
def test_white_space_around_a_header_is_stripped(service: Service, around: tuple[str, str]) -> None:
    body = json.dumps({"image_url": service.upload().json()["result_url"], "scale": 2}).encode()
    before, after = around
    with Connection(service) as connection:
        lines = [
            *("POST /v1/upscale HTTP/1.1", "Host: x", f"X-API-KEY:{before}{service.key}{after}"),
            *(f"Content-Type:{before}application/json{after}", f"Accept:{before}image/*{after}"),
            *(f"X-Request-Id:{before}mine{after}", f"Content-Length: {len(body)}"),
        ]
        connection.send("\r\n".join([*lines, "", ""]).encode() + body)
        answer = connection.receive()
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg"), answer.body
    assert answer.headers["x-request-id"] == "mine"


def test_settings_change_the_limits_of_a_side(make_service: MakeService) -> None:
    service = make_service(max_input_side_x4=2000, max_input_side_x2=100)
    assert service.upload(picture(2000, 64), data={"scale": "4"}).status_code == 200
    assert_error(service.upload(picture(101, 64)), 400, "resolution_too_high")


def test_a_revoked_key_is_unknown_at_once(make_service: MakeService) -> None:
    service = make_service()
    assert service.upload().status_code == 200
    service.state.keys.revoke("test")
    assert_error(service.upload(), 401, "invalid_auth_token")


def test_a_key_has_its_own_rate_as_soon_as_it_is_set(make_service: MakeService) -> None:
    service = make_service(rate_per_s=0.01, rate_burst=1)
    assert service.upload().status_code == 200
    assert_error(service.upload(), 429, "rate_limit_exceeded")
    service.state.keys.set_rate("test", RateLimit(per_s=1000, burst=3))
    assert [service.upload().status_code for _ in range(3)] == [200] * 3
    service.state.keys.set_rate("test", RateLimit())
    assert [service.upload().status_code for _ in range(2)] == [200, 429]


def test_the_size_is_checked_before_the_queue(make_service: MakeService) -> None:
    service = make_service(FailingExecutor(RateLimitExceeded(5)))
    assert_error(service.upload(picture(3001, 64)), 400, "resolution_too_high")
    assert_error(service.upload(), 429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("error", "status", "error_code"),
    [
        (MalformedImage(), 400, "malformed_image"),
        (InternalError(detail="a secret"), 500, "internal_error"),
        (RateLimitExceeded(17), 429, "rate_limit_exceeded"),
        (ValueError("a secret at /etc/passwd"), 500, "internal_error"),
        (MemoryError(), 500, "internal_error"),
        (RecursionError("a secret"), 500, "internal_error"),
    ],
)
def test_errors_of_the_worker_are_answered_without_their_details(
    make_service: MakeService, error: Exception, status: int, error_code: str
) -> None:
    service = make_service(FailingExecutor(error))
    answer = service.upload()
    text = assert_error(answer, status, error_code)
    assert "secret" not in text
    assert answer.headers.get("Retry-After") == ("17" if status == 429 else None)
    assert service.stored_files() == []


SETTINGS = load_settings({})


def check_sides(width_px: int, height_px: int, scale: int) -> None:
    check_size(Header("PNG", width_px, height_px, False), scale, SETTINGS)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(64, 64, 2), (64, 64, 4), (3000, 3000, 2), (1500, 1500, 4), (64, 3000, 2), (1500, 64, 4)],
)
def test_sizes_within_the_limits_pass(width_px: int, height_px: int, scale: int) -> None:
    check_sides(width_px, height_px, scale)


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (0, 0), (63, 3001), (9000, 1)])
def test_a_side_too_short_is_reported_before_one_too_long(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameter, match="64x64"):
        check_sides(*size, 2)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(3001, 64, 2), (64, 3001, 2), (1501, 64, 4), (64, 1501, 4), (10**9, 10**9, 2)],
)
def test_a_side_too_long_is_refused(width_px: int, height_px: int, scale: int) -> None:
    with pytest.raises(ResolutionTooHigh):
        check_sides(width_px, height_px, scale)
