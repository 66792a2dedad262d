import json
import logging
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.executors import FailingExecutor, HangingExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.raw import Connection, seconds_since
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from tests.service.denoising import NAME, place_file
from upscaled.api.middleware import SMALL_BODY_BYTES, choose_request_id
from upscaled.api.protocol.http1 import BODY_STALL_S
from upscaled.errors import InternalError
from upscaled.logs import JsonFormatter

LOGGER = "upscaled.api.telemetry.access_log"


@pytest.fixture
def lines(
    service: Service, caplog: pytest.LogCaptureFixture
) -> Callable[[int], list[dict[str, Any]]]:
    """Wait for so many log lines, each written after its response, and return their fields."""
    reporter = service.app.state.context.reporter  # of the service that all tests share
    wait_until(lambda: reporter.in_flight == 0)
    reporter.flush()
    caplog.set_level(logging.INFO, LOGGER)

    def found() -> list[dict[str, Any]]:
        records = [each for each in caplog.records if each.name == LOGGER]
        assert {getattr(each, "event", "") for each in records} <= {"request"}
        return [dict(getattr(each, "fields", {})) for each in records]

    def read(count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(found()) >= count)
        return found()

    return read


Lines = Callable[[int], list[dict[str, Any]]]


def test_a_success_is_logged_in_one_line_with_all_figures(service: Service, lines: Lines) -> None:
    service.upload(headers=service.headers | {"X-Request-Id": "mine"})
    (line,) = lines(1)
    assert line.pop("total_ms") > 0
    assert line.pop("receive_ms") > 0
    assert line.pop("store_ms") > 0
    assert line.pop("result_bytes") > 100
    assert line == {
        "method": "POST",
        "route": "/v1/upscale",
        "status": 200,
        "outcome": "ok",
        "request_id": "mine",
        "key_name": "test",
        "scale": 2,
        "source": "upload",
        "source_bytes": len(picture()),
        "width_px": 80,
        "height_px": 64,
        "format": "PNG",
        "result_format": "jpeg",
        "result_width_px": 160,
        "result_height_px": 128,
        "model": "resize",
        "engine": "pillow nearest",
        "queue_ms": 1.0,
        "decode_ms": 2.0,
        "network_ms": 250.0,
        "encode_ms": 3.0,
    }


def test_the_log_names_the_requested_model_and_the_model_of_tempering(
    make_service: MakeService, lines: Lines
) -> None:
    service = make_service()
    service.executor.tempered_with = "upscaled-x2"
    service.upload(headers=service.headers | {"X-Upscale-Model": "upscaled-x4"})
    service.upload(headers=service.headers | {"X-Upscale-Model": "nonsense"})
    place_file(service.settings.models_dir, NAME)
    strong = {"X-Upscale-Model": NAME, "X-Upscale-Denoise": "1"}
    service.upload(headers=service.headers | strong)
    upscaled, refused, denoised = lines(3)
    assert (denoised["model"], denoised["requested_model"], denoised["denoise"]) == (NAME, NAME, 1)
    assert "denoise" not in upscaled
    assert (upscaled["model"], upscaled["requested_model"]) == ("upscaled-x4", "upscaled-x4")
    assert upscaled["tempered_with"] == "upscaled-x2"
    assert refused["error_code"] == "invalid_parameter"
    assert not {"model", "requested_model", "tempered_with"} & set(refused)


def test_a_refusal_has_its_reason(service: Service, lines: Lines) -> None:
    service.upload(b"garbage")
    service.send_json({"image_url": "http://10.0.0.1/photo", "scale": 2})
    service.get("/nothing")
    first, second, third = lines(3)
    assert (first["status"], first["error_code"]) == (400, "malformed_image")
    assert "10.0.0.1" in second["error_detail"]
    assert (third["route"], third["error_code"]) == ("other", "not_found")
    assert {line["outcome"] for line in (first, second, third)} == {"refused"}


def test_the_log_says_which_of_a_code_s_reasons_was_answered(
    service: Service, lines: Lines
) -> None:
    twice = service.headers | {"Idempotency-Key": str(uuid.uuid4())}
    answers = [
        service.upload(data={"scale": "3"}),
        service.send_json({"image_url": "http://10.0.0.1/photo"}),
        service.upload(picture(63, 64)),
        service.upload(headers=twice),
        service.upload(headers=twice, data={"scale": "4"}),
    ]
    texts = [each.json()["error"] for each in answers if each.status_code == 400]
    assert len(set(texts)) == 4
    assert [each.get("error_detail") for each in lines(5) if each["status"] == 400] == texts


def test_the_log_does_not_repeat_what_a_code_says(service: Service, lines: Lines) -> None:
    service.upload(headers={"X-API-KEY": "upk_wrong"})
    service.get("/nothing")
    assert [each.get("error_detail") for each in lines(2)] == [None, None]


def test_a_client_that_disconnects_is_logged_apart_from_a_failure(
    make_service: MakeService, lines: Lines
) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with Connection(service) as connection:
        connection.send_upload()
        assert executor.has_begun.wait(60)
    (line,) = lines(1)
    assert (line["status"], line["outcome"], line["error_code"]) == (499, "gone", "client_gone")


def test_probes_are_logged_only_where_they_fail(make_service: MakeService, lines: Lines) -> None:
    executor = ResizingExecutor()
    service = make_service(executor)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert service.get(path).status_code == 200
    executor.is_available = False
    assert service.get("/readyz").status_code == 503
    (line,) = lines(1)
    assert (line["route"], line["status"], line["outcome"]) == ("/readyz", 503, "failed")


def test_an_unknown_method_is_logged_as_other(service: Service, lines: Lines) -> None:
    requests.request("SECRET", f"{service.url}/healthz", timeout=60)
    assert lines(1)[0]["method"] == "other"


@pytest.mark.usefixtures("lines")
def test_neither_keys_nor_result_names_are_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = service.upload().json()["result_url"]
    service.get(url.removeprefix(service.url))
    service.upload(headers={"X-API-KEY": "upk_wrong"})
    service.get(f"/v1/credits?key={service.key}")
    others = ("urllib3", "uvicorn.access")  # the test's own client; what `serve` turns off

    def read() -> list[str]:
        ours = [each for each in caplog.records if not each.name.startswith(others)]
        return [JsonFormatter().format(each) for each in ours]

    wait_until(lambda: sum('"event": "request"' in line for line in read()) == 4)
    ours = read()
    name = url.rpartition("/")[2]
    assert not [line for line in ours if service.key in line or name in line or "wrong" in line]


def test_an_unhandled_exception_is_logged_with_its_trace_and_answered_without(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(FailingExecutor(ValueError("a secret")))
    assert "secret" not in assert_error(service.upload(), 500, "internal_error")
    wait_until(lambda: bool([each for each in caplog.records if each.exc_info]))
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.name == "upscaled.api.middleware"
    assert "ValueError: a secret" in caplog.text
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["level"]) == ("request_failed", "error")
    assert line["exception"].endswith("ValueError: a secret")


def test_an_internal_error_s_detail_is_logged(make_service: MakeService, lines: Lines) -> None:
    service = make_service(FailingExecutor(InternalError(detail="two workers died")))
    service.upload()
    assert lines(1)[-1]["error_detail"] == "two workers died"


@pytest.mark.parametrize(
    "sent", ["a", "A-1_b.c", "x" * 128, "6f0e2a52-4a0b-4d5e-9d0a-3c1f2b7a9e55"]
)
def test_a_valid_request_id_is_kept(sent: str) -> None:
    assert choose_request_id(sent) == sent


@pytest.mark.parametrize(
    "sent", [None, "", "x" * 129, "a b", "a\n", "a\r\nX: y", "<script>", "ä", "１", "a/b", '"']
)
def test_an_unsafe_request_id_is_replaced_by_a_uuid4(sent: str | None) -> None:
    chosen = choose_request_id(sent)
    assert uuid.UUID(chosen).version == 4
    assert choose_request_id(sent) != chosen


KEY = "upk_0123456789abcdef_" + "x" * 43


@pytest.mark.parametrize(
    ("sent", "api_key"),
    [
        (KEY, None),
        (KEY, KEY),
        (KEY.upper(), None),
        ("id-" + KEY, None),
        ("upk_", None),
        ("a-key-of-the-hosted-api", "a-key-of-the-hosted-api"),
        ("a-key-of-the-hosted-api", " a-key-of-the-hosted-api "),
        ("x-a-key-of-the-hosted-api", "a-key-of-the-hosted-api"),
    ],
)
def test_an_api_key_sent_as_request_id_is_replaced(sent: str, api_key: str | None) -> None:
    chosen = choose_request_id(sent, api_key)
    assert uuid.UUID(chosen).version == 4


@pytest.mark.parametrize("api_key", [None, "", " ", KEY])
def test_a_request_id_beside_a_key_is_kept(api_key: str | None) -> None:
    assert choose_request_id("order-7", api_key) == "order-7"


JSON = "Content-Type: application/json"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.jpg"
    path.write_bytes(bytes(30_000_000))
    return path


def curl(*arguments: str) -> tuple[str, dict[str, str]]:
    """The status and the JSON body curl got; its exit code must be 0."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "-w", "\n%{http_code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return status, json.loads(body)


@needs_curl
@pytest.mark.parametrize(
    "how",
    [
        [],  # over 1 MB: curl sends Expect: 100-continue
        ["-H", "Expect:"],
        ["-H", "Transfer-Encoding: chunked"],
        ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        ["--http1.0"],
    ],
)
def test_curl_reads_the_refusal_of_a_large_file(
    service: Service, large_file: Path, how: list[str]
) -> None:
    key = ["-H", f"X-API-KEY: {service.key}"]
    form = ["-F", "scale=2", "-F", f"image=@{large_file}"]
    if how == ["--http1.0"]:
        how = [*how, "-H", "Expect:"]
    status, body = curl(f"{service.url}/v1/upscale", *key, *form, *how)
    assert (status, body["error_code"]) == ("400", "file_size_too_large")
    assert set(body) == {"error", "error_code"}


@needs_curl
@pytest.mark.parametrize("expect", [[], ["-H", "Expect:"]])
def test_curl_reads_a_refusal_that_is_sent_before_the_body(
    service: Service, large_file: Path, expect: list[str]
) -> None:
    form = ["-F", "scale=2", "-F", f"image=@{large_file}", *expect]
    status, body = curl(f"{service.url}/v1/upscale", *form)
    assert (status, body["error_code"]) == ("401", "invalid_auth_token")
    status, body = curl(f"{service.url}/v1/nothing", *form)
    assert (status, body["error_code"]) == ("404", "not_found")
    raw = ["-H", f"X-API-KEY: {service.key}", "--data-binary", f"@{large_file}", *expect]
    status, body = curl(f"{service.url}/v1/upscale", *raw)
    assert (status, body["error_code"]) == ("400", "unsupported_content_type")


def test_a_client_that_sends_everything_before_it_reads_receives_the_refusal(
    service: Service, large_file: Path
) -> None:
    with large_file.open("rb") as file:
        answer = requests.post(f"{service.url}/v1/upscale", data=file, timeout=60)
    assert_error(answer, 401, "invalid_auth_token")


def test_the_answer_does_not_wait_for_the_body_and_one_that_stalls_ends_the_connection(
    service: Service,
) -> None:
    with Connection(service) as connection:
        started = time.monotonic()
        connection.send_head("Content-Type: text/plain", "Content-Length: 20000000")
        answer = connection.receive()
        answer.assert_error(400, "unsupported_content_type")
        assert seconds_since(started) < BODY_STALL_S / 2
        assert answer.headers["connection"] == "close"
        connection.send(bytes(1_000_000))  # still taken, and thrown away
        started = time.monotonic()
        assert connection.is_closed()
        assert seconds_since(started) < BODY_STALL_S / 2


def test_a_client_that_waits_for_100_continue_is_refused_at_once(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head(
            "Content-Type: text/plain", "Content-Length: 9", "Expect: 100-continue"
        )
        answer = connection.receive()
        answer.assert_error(400, "unsupported_content_type")


def test_a_client_that_may_send_its_body_receives_100_continue(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head(JSON, "Content-Length: 2", "Expect: 100-continue")
        assert connection.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"{}")
        connection.receive().assert_error(400, "missing_parameter")


def test_a_small_body_leaves_the_connection_usable(service: Service) -> None:
    with Connection(service) as connection:
        for _ in range(3):
            connection.send_head("Content-Type: text/plain", f"Content-Length: {SMALL_BODY_BYTES}")
            connection.send(bytes(SMALL_BODY_BYTES))
            answer = connection.receive()
            answer.assert_error(400, "unsupported_content_type")
            assert "connection" not in answer.headers
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200


def test_the_body_of_a_get_is_discarded(service: Service) -> None:
    with Connection(service) as connection:
        connection.send_head("Content-Length: 5", method="GET", path="/healthz")
        connection.send(b"hello")
        assert connection.receive().status == 200
        connection.send_head(method="GET", path="/healthz")
        assert connection.receive().status == 200


def test_responses_keep_the_connection_open(make_service: MakeService) -> None:
    service = make_service()
    with requests.Session() as session:
        for _ in range(3):
            answer = session.get(f"{service.url}/healthz", timeout=5)
            assert "Connection" not in answer.headers


PAGE = "https://app.example.com"


@pytest.fixture
def open_to_page(make_service: MakeService) -> Service:
    return make_service(cors_origins=PAGE)


def test_a_page_of_an_allowed_origin_may_send_its_key_and_read_the_answer(
    open_to_page: Service,
) -> None:
    preflight_headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,idempotency-key",
    }
    preflight = requests.options(
        f"{open_to_page.url}/v1/upscale", headers=preflight_headers, timeout=5
    )
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "x-api-key,idempotency-key"
    answer = open_to_page.upload(headers={**open_to_page.headers, "Origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Expose-Headers"] == "*"
    assert "Origin" in answer.headers["Vary"]
    refused = open_to_page.upload(headers={"Origin": PAGE})
    assert_error(refused, 401, "invalid_auth_token")
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE


def test_a_page_of_an_allowed_origin_can_read_an_internal_error(make_service: MakeService) -> None:
    service = make_service(FailingExecutor(RuntimeError("broken")), cors_origins=PAGE)
    answer = service.upload(headers={**service.headers, "Origin": PAGE})
    assert_error(answer, 500, "internal_error")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://other.example", f"{PAGE}.evil.example", "null"])
def test_a_page_of_another_origin_is_allowed_nothing(open_to_page: Service, origin: str) -> None:
    preflight_headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = requests.options(
        f"{open_to_page.url}/v1/upscale", headers=preflight_headers, timeout=5
    )
    assert preflight.status_code == 400
    answer = open_to_page.upload(headers={**open_to_page.headers, "Origin": origin})
    for each in (preflight, answer):
        assert "Access-Control-Allow-Origin" not in each.headers


def test_all_origins_may_be_allowed_and_none_is_by_default(
    make_service: MakeService, service: Service
) -> None:
    with_origin = {**service.headers, "Origin": PAGE}
    assert "Access-Control-Allow-Origin" not in service.upload(headers=with_origin).headers
    everyone = make_service(cors_origins="*")
    answer = everyone.upload(headers={**everyone.headers, "Origin": PAGE})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
