import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.executors import FailingExecutor
from tests.service.api.pictures import picture, picture_of_bytes, size_of
from tests.service.api.raw import Connection
from tests.service.api.serving import Service
from tests.service.image.jpeg_samples import photograph, save_jpeg
from tests.service.image.steps import count_reading
from upscaled.api.routes.upscale import check_size
from upscaled.config import load_settings
from upscaled.errors import (
    InternalError,
    InvalidParameter,
    MalformedImage,
    RateLimitExceeded,
    ResolutionTooHigh,
)
from upscaled.image.types import Header

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
    result = requests.get(url, timeout=5)
    assert size_of(result.content) == (80 * int(float(scale)), 64 * int(float(scale)))


def test_the_front_end_sniffs_an_upload_and_parses_its_header_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_reading(monkeypatch.setattr)
    assert service.upload(save_jpeg(photograph(80, 96))).status_code == 200
    assert counts == {"sniffed": 1, "header parsed": 1}


def test_the_image_itself_comes_where_it_is_wanted(service: Service) -> None:
    answer = service.upload(headers=service.headers | {"Accept": "image/*"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert size_of(answer.content) == (160, 128)
    assert re.fullmatch(TIMING, answer.headers["Server-Timing"])
    assert_request_id(answer)


@pytest.mark.parametrize("accept", ["image/*", "image/jpeg", "image/webp"])
def test_alpha_gives_a_png_whatever_accept_says(service: Service, accept: str) -> None:
    image = picture(mode="RGBA")
    answer = service.upload(image, headers=service.headers | {"Accept": accept})
    assert answer.headers["Content-Type"] == "image/png"
    assert service.upload(image).json()["result_url"].endswith(".png")


def test_several_accept_headers_count_as_one_list(service: Service) -> None:
    body = json.dumps({"image_url": service.upload().json()["result_url"], "scale": 2}).encode()
    sent = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with Connection(service) as connection:
        for second, expected in (("application/json", "application/json"), ("a/b", "image/jpeg")):
            connection.send_head(*sent, "Accept: image/*;q=0.5", f"Accept: {second}")
            connection.send(body)
            assert connection.receive().headers["content-type"] == expected


@pytest.mark.parametrize("name", ["X-API-KEY", "x-api-key", "X-Api-Key"])
def test_the_key_header_in_any_letter_case(service: Service, name: str) -> None:
    assert service.upload(headers={name: service.key}).status_code == 200


def test_unknown_fields_and_queries_change_nothing(service: Service) -> None:
    answer = requests.post(
        f"{service.url}/v1/upscale?scale=3&format=webp",
        headers=service.headers,
        data={"scale": "2", "format": "webp", "model": "x", "image2": "y"},
        files={"image": ("a.webp", picture(), "image/webp")},
        timeout=10,
    )
    assert answer.json()["result_url"].endswith(".jpg")


def test_bytes_decide_rather_than_names_and_types(service: Service) -> None:
    for name, media_type in (("a.txt", "text/plain"), ("stream", "application/octet-stream")):
        files = {"image": (name, picture(format_name="WEBP"), media_type)}
        assert service.upload(files=files).status_code == 200
    assert_error(
        service.upload(files={"image": ("a.png", b"text", "image/png")}), 400, "malformed_image"
    )


def test_a_sane_request_id_is_kept_and_handed_on(service: Service) -> None:
    mine = f"mine-{uuid.uuid4()}"
    answer = service.upload(headers=service.headers | {"X-Request-Id": mine})
    assert answer.headers["X-Request-Id"] == mine
    assert service.executor.requests[-1].request_id == mine
    other = service.upload(headers=service.headers | {"X-Request-Id": "not sane"})
    assert uuid.UUID(other.headers["X-Request-Id"]).version == 4


def test_the_worker_gets_the_upright_size(service: Service) -> None:
    service.upload(picture(100, 70), data={"scale": "4"})
    work = service.executor.requests[-1]
    assert (work.scale, work.width_px, work.height_px) == (4, 100, 70)


def test_the_public_base_url_begins_every_result_url(make_service: Callable[..., Service]) -> None:
    service = make_service(public_base_url="https://upscale.example.com/images/")
    url = service.upload().json()["result_url"]
    assert re.fullmatch(rf"https://upscale\.example\.com/images/public/result/{UUID4}\.jpg", url)


def test_without_one_the_address_the_client_called_does(service: Service) -> None:
    called = service.upload(headers=service.headers | {"Host": "upscale.example.com:8443"})
    assert called.json()["result_url"].startswith("http://upscale.example.com:8443/public/result/")
    forwarded = service.headers | {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil"}
    assert service.upload(headers=forwarded).json()["result_url"].startswith(service.url + "/")


@pytest.mark.parametrize("host", ["evil.example/x?", "a b", "a@b", '"', "[::1", "a\\b"])
def test_a_broken_host_header_is_refused(service: Service, host: str) -> None:
    answer = service.upload(headers=service.headers | {"Host": host})
    assert_error(answer, 400, "invalid_request_body")


def test_a_host_with_a_port_that_is_none_stays_out_of_the_result_url(service: Service) -> None:
    answer = service.upload(headers=service.headers | {"Host": "x:99999"})
    assert answer.json()["result_url"].startswith(service.url + "/public/result/")


# Own results as a source.


def test_a_result_url_may_be_fed_back(make_service: Callable[..., Service]) -> None:
    """Past the guard: no source network is allowed here."""
    service = make_service()
    first = service.upload().json()["result_url"]
    again = service.send_json({"image_url": first, "scale": 2})
    assert size_of(requests.get(again.json()["result_url"], timeout=5).content) == (320, 256)


def test_under_whatever_name_of_the_server(make_service: Callable[..., Service]) -> None:
    service = make_service(public_base_url="https://upscale.example.com/images")
    first = service.upload().json()["result_url"]
    called = first.replace("https://upscale.example.com/images", service.url)
    renamed = called.replace(service.url, "https://another-name.invalid:8443")
    for url in (first, called, renamed):
        assert service.send_json({"image_url": url, "scale": 2}).status_code == 200, url


def test_the_result_path_opens_no_other_way_in(service: Service) -> None:
    for host in ("127.0.0.2:49999", "10.0.0.1", "169.254.169.254"):
        url = f"http://{host}/public/result/{uuid.uuid4()}.jpg"
        answer = service.send_json({"image_url": url, "scale": 2})
        assert_error(answer, 400, "invalid_parameter")


def test_an_expired_result_cannot_be_fetched(make_service: Callable[..., Service]) -> None:
    now = [1_800_000_000.0]
    service = make_service(clock=lambda: now[0])
    url = service.upload().json()["result_url"]
    now[0] += 3599
    assert service.send_json({"image_url": url, "scale": 2}).status_code == 200
    now[0] += 1
    assert_error(service.send_json({"image_url": url, "scale": 2}), 400, "invalid_parameter")


def test_the_size_limit_holds_for_own_results(make_service: Callable[..., Service]) -> None:
    service = make_service(max_file_bytes=1024)
    url = service.upload(picture(160, 160)).json()["result_url"]
    assert int(requests.head(url, timeout=5).headers["Content-Length"]) > 1024
    assert_error(service.send_json({"image_url": url, "scale": 2}), 400, "file_size_too_large")


# What may be missing or wrong.

URL = "http://127.0.0.1:49999/photo.png"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["image", "scale"]),
        ({"scale": 2}, ["image"]),
        ({"scale": 2, "image_url": None}, ["image"]),
        ({"scale": 2, "image_url": ""}, ["image"]),
        ({"scale": 2, "image": "aGVsbG8="}, ["image"]),
        ({"scale": 2, "image": "data:image/png;base64,aGVsbG8="}, ["image"]),
        ({"image_url": URL}, ["scale"]),
        ({"image_url": URL, "scale": None}, ["scale"]),
        ({"image_url": URL, "scale": ""}, ["scale"]),
        ({"Image_Url": URL, "Scale": 2}, ["image", "scale"]),
    ],
)
def test_what_is_missing_is_named(service: Service, body: Any, named: list[str]) -> None:
    text = assert_error(service.send_json(body), 400, "missing_parameter")
    assert [name for name in ("image", "scale") if re.search(rf"\b{name}\b", text)] == named


@pytest.mark.parametrize(
    ("data", "files", "named"),
    [
        ({}, {"image": picture()}, ["scale"]),
        ({"scale": ""}, {"image": picture()}, ["scale"]),
        ({"scale": "2"}, {"photo": picture()}, ["image"]),
        ({"scale": "2", "image": ""}, {"x": b""}, ["image"]),
        ({"scale": "2", "image_url": ""}, {"image": ("", b"")}, ["image"]),
        ({"a": "b"}, {"photo": picture()}, ["image", "scale"]),
    ],
)
def test_what_is_missing_in_a_form_is_named(
    service: Service, data: Any, files: Any, named: list[str]
) -> None:
    text = assert_error(service.upload(data=data, files=files), 400, "missing_parameter")
    assert [name for name in ("image", "scale") if re.search(rf"\b{name}\b", text)] == named


@pytest.mark.parametrize(
    "scale",
    [
        *("1", "3", "2.27", "true", "false", '"3"', '" 2 "', "[]", "[2]", "{}", '"two"', '"２"'),
        *("1e400", "NaN", "Infinity", "9" * 6000),
    ],
)
def test_a_bad_scale_is_invalid(service: Service, scale: str) -> None:
    answer = service.send_json(
        None,
        data=f'{{"image_url": "{URL}", "scale": {scale}}}'.encode(),
        headers=service.headers | {"Content-Type": "application/json"},
    )
    assert "scale" in assert_error(answer, 400, "invalid_parameter")


@pytest.mark.parametrize("scale", ["1", "3", "2.27", "true", " 2 ", "NaN", "[]", "２", "2\n\n"])
def test_a_bad_scale_in_a_form_is_invalid(service: Service, scale: str) -> None:
    assert_error(service.upload(data={"scale": scale}), 400, "invalid_parameter")


def test_image_as_text_is_invalid(service: Service) -> None:
    answer = service.upload(data={"scale": "2", "image": "aGVsbG8="}, files={"x": b""})
    assert_error(answer, 400, "invalid_parameter")
    both = service.upload(data={"scale": "2", "image": "x", "image_url": URL}, files={"x": b""})
    assert_error(both, 400, "invalid_parameter")


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/octet-stream", "image/png"]
)
@pytest.mark.parametrize("sent", [b"2", b"2\n", b"2\r\n", b'"2"'])
def test_a_scale_may_be_sent_as_a_file(
    service: Service, media_type: str | None, sent: bytes
) -> None:
    scale = ("scale.txt", sent, media_type) if media_type else ("scale.txt", sent)
    answer = service.upload(data={}, files={"image": ("a", picture()), "scale": scale})
    assert answer.status_code == 200, answer.text


def test_an_image_url_may_be_sent_as_a_file(service: Service) -> None:
    own = service.upload().json()["result_url"].encode()
    answer = service.upload(files={"image_url": ("url.txt", own + b"\n")})
    assert answer.status_code == 200, answer.text


def test_a_file_that_is_no_scale_is_invalid(service: Service) -> None:
    for sent in (b"3", b" 2 ", b"2 ", b"2\n\n", b"\xff", b"2" * 100_000, picture()):
        answer = service.upload(data={}, files={"image": ("a", picture()), "scale": ("x", sent)})
        assert "scale" in assert_error(answer, 400, "invalid_parameter")


def test_a_picture_may_come_without_type_and_name(service: Service) -> None:
    answer = service.upload(files={"image": (None, picture())})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"imageUrl": URL, "scale": 2}, "instead of imageUrl send image_url"),
        ({"image": "data:image/png;base64,AAAA", "scale": 2}, "instead of image send image_url"),
        ({"image_url": URL, "scaleFactor": 2}, "instead of scaleFactor send scale"),
    ],
)
def test_the_error_names_the_right_field_for_a_misnamed_one(
    service: Service, body: dict[str, Any], sentence: str
) -> None:
    text = assert_error(service.send_json(body), 400, "missing_parameter")
    assert text.endswith("; " + sentence)


def test_the_error_names_the_right_field_for_a_misnamed_file(service: Service) -> None:
    text = assert_error(service.upload(files={"file": picture()}), 400, "missing_parameter")
    assert text == "Missing parameter: image or image_url; instead of file send image"


@pytest.mark.parametrize("around", [("", " "), ("", "\t"), (" ", ""), (" \t ", " \t ")])
def test_white_space_around_a_header_is_none_of_it(
    service: Service, around: tuple[str, str]
) -> None:
    body = json.dumps({"image_url": service.upload().json()["result_url"], "scale": 2}).encode()
    before, after = around
    with Connection(service) as connection:
        lines = [
            "POST /v1/upscale HTTP/1.1",
            *("Host: x", f"X-API-KEY:{before}{service.key}{after}"),
            f"Content-Type:{before}application/json{after}",
            f"Accept:{before}image/*{after}",
            f"X-Request-Id:{before}mine{after}",
            f"Content-Length: {len(body)}",
        ]
        connection.send("\r\n".join([*lines, "", ""]).encode() + body)
        answer = connection.receive()
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg"), answer.body
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("path", ["/v1/upscale", "/v1/upscale/", "/v1/upscale/?a=b"])
def test_a_slash_at_the_end_is_the_same_path(service: Service, path: str) -> None:
    asked: dict[str, Any] = {"headers": service.headers, "timeout": 10, "allow_redirects": False}
    files, data = {"image": picture()}, {"scale": "2"}
    answer = requests.post(service.url + path, files=files, data=data, **asked)
    assert answer.status_code == 200, answer.text
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = requests.request(method, service.url + path, **asked)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), method


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a.png", "photo.png", "data:image/png;base64,AAAA", 5, [], {}, True),
        *(
            "http://127.0.0.1:49999/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
        ),
        *("http://no-such-host.invalid/a.png", "http://[::1]/", "http://example.com:22/"),
    ],
)
def test_one_text_for_every_unusable_url(service: Service, url: Any) -> None:
    text = assert_error(service.send_json({"image_url": url, "scale": 2}), 400, "invalid_parameter")
    assert text == "image_url could not be fetched"


def test_image_wins_over_image_url_which_is_not_even_looked_at(service: Service) -> None:
    for url in ("http://127.0.0.1:49999/", "nonsense", ""):
        assert service.upload(data={"scale": "2", "image_url": url}).status_code == 200


@pytest.mark.parametrize(
    "image",
    [b"", b"\x00" * 100, b"garbage", picture()[:30], picture(format_name="JPEG")[:20], b"\x89PNG"],
)
def test_what_is_no_image_is_malformed(service: Service, image: bytes) -> None:
    assert_error(service.upload(image), 400, "malformed_image")


@pytest.mark.parametrize("format_name", ["GIF", "BMP", "TIFF", "ICO", "PPM", "JPEG2000"])
def test_a_format_that_is_not_enabled_is_unsupported(service: Service, format_name: str) -> None:
    answer = service.upload(picture(format_name=format_name))
    assert_error(answer, 400, "unsupported_image_format")


@pytest.mark.parametrize("image", [b"%PDF-1.7\n", b"8BPS\x00\x01", b"<svg xmlns='x'></svg>"])
def test_documents_and_drawings_are_an_unsupported_format(service: Service, image: bytes) -> None:
    assert_error(service.upload(image), 400, "unsupported_image_format")


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (1, 1), (63, 4000), (4000, 63)])
def test_a_side_under_64_px_is_too_small_whatever_the_other(
    service: Service, size: tuple[int, int]
) -> None:
    assert "64x64" in assert_error(service.upload(picture(*size)), 400, "invalid_parameter")


def test_64_px_are_enough(service: Service) -> None:
    assert service.upload(picture(64, 64)).status_code == 200


@pytest.mark.parametrize(("scale", "limit_px"), [("2", 3000), ("4", 1500)])
def test_the_side_limit_of_each_scale(service: Service, scale: str, limit_px: int) -> None:
    for size in ((limit_px, 64), (64, limit_px)):
        assert service.upload(picture(*size), data={"scale": scale}).status_code == 200
    for size in ((limit_px + 1, 64), (64, limit_px + 1), (limit_px + 1, limit_px + 1)):
        answer = service.upload(picture(*size), data={"scale": scale})
        assert_error(answer, 400, "resolution_too_high")


def test_wider_limits_by_setting(make_service: Callable[..., Service]) -> None:
    service = make_service(max_input_side_x4=2000, max_input_side_x2=100)
    assert service.upload(picture(2000, 64), data={"scale": "4"}).status_code == 200
    assert_error(service.upload(picture(101, 64)), 400, "resolution_too_high")


def test_the_size_limit_on_both_sides(make_service: Callable[..., Service]) -> None:
    service = make_service(max_file_bytes=100_000)
    assert service.upload(picture_of_bytes(100_000)).status_code == 200
    text = assert_error(service.upload(picture_of_bytes(100_001)), 400, "file_size_too_large")
    assert text == "File size too large"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (None, b"{}"),
        ("application/x-www-form-urlencoded", b"scale=2&image_url=http://example.com"),
        ("text/plain", b'{"scale": 2}'),
        ("image/jpeg", picture(format_name="JPEG")),
        ("application/octet-stream", picture()),
        ("", b""),
    ],
)
def test_other_content_types_are_unsupported(
    service: Service, content_type: str | None, body: bytes
) -> None:
    headers = service.headers | ({} if content_type is None else {"Content-Type": content_type})
    answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=body, timeout=5)
    assert_error(answer, 400, "unsupported_content_type")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"a": "' + b"\xff" + b'"}'),
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb',
        ),
    ],
)
def test_broken_bodies_are_invalid(service: Service, content_type: str, body: bytes) -> None:
    headers = service.headers | {"Content-Type": content_type}
    answer = requests.post(f"{service.url}/v1/upscale", headers=headers, data=body, timeout=5)
    assert_error(answer, 400, "invalid_request_body")


@pytest.mark.parametrize(
    "key", [None, "", "wrong", "upk_" + "0" * 16 + "_" + "A" * 43, "é", "x" * 9000]
)
def test_every_wrong_key_reads_the_same(service: Service, key: str | None) -> None:
    headers = {} if key is None else {"X-API-KEY": key.encode()}
    for path, method in (("/v1/upscale", "POST"), ("/v1/credits", "GET")):
        answer = requests.request(method, service.url + path, headers=headers, timeout=5)
        assert assert_error(answer, 401, "invalid_auth_token") == "API Token not found"


def test_the_key_goes_nowhere_else(service: Service) -> None:
    for headers in (
        {"Authorization": f"Bearer {service.key}"},
        {"Cookie": f"X-API-KEY={service.key}"},
    ):
        assert_error(service.upload(headers=headers), 401, "invalid_auth_token")
    url = f"{service.url}/v1/upscale?X-API-KEY={service.key}&api_key={service.key}"
    assert_error(requests.post(url, timeout=5), 401, "invalid_auth_token")


def test_a_revoked_key_is_unknown_at_once(make_service: Callable[..., Service]) -> None:
    service = make_service()
    assert service.upload().status_code == 200
    service.state.keys.revoke("test")
    assert_error(service.upload(), 401, "invalid_auth_token")


def test_more_than_the_rate_is_refused_with_a_truthful_wait(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(rate_per_s=2, rate_burst=2)
    headers = {"headers": service.headers}
    answers = [service.get("/v1/credits", **headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_error(answers[2], 429, "rate_limit_exceeded")
    assert answers[2].headers["Retry-After"] == "1"
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
def test_what_the_worker_reports_is_answered_without_its_secrets(
    make_service: Callable[..., Service], error: Exception, status: int, error_code: str
) -> None:
    service = make_service(FailingExecutor(error))
    answer = service.upload()
    text = assert_error(answer, status, error_code)
    assert "secret" not in text
    assert answer.headers.get("Retry-After") == ("17" if status == 429 else None)
    assert service.stored_files() == []


SETTINGS = load_settings({})


def judge(width_px: int, height_px: int, scale: int) -> None:
    check_size(Header("PNG", width_px, height_px, False), scale, SETTINGS)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(64, 64, 2), (64, 64, 4), (3000, 3000, 2), (1500, 1500, 4), (64, 3000, 2), (1500, 64, 4)],
)
def test_sizes_within_the_limits_pass(width_px: int, height_px: int, scale: int) -> None:
    judge(width_px, height_px, scale)


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (0, 0), (63, 3001), (9000, 1)])
def test_a_side_too_short_comes_first(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameter, match="64x64"):
        judge(*size, 2)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(3001, 64, 2), (64, 3001, 2), (1501, 64, 4), (64, 1501, 4), (10**9, 10**9, 2)],
)
def test_a_side_too_long_is_refused(width_px: int, height_px: int, scale: int) -> None:
    with pytest.raises(ResolutionTooHigh):
        judge(width_px, height_px, scale)
