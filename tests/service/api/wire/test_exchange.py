import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.service.api.answers import assert_error
from tests.service.api.executors import FailingExecutor, HangingExecutor, ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until
from upscaled.errors import InternalError
from upscaled.logs import JsonFormatter

LOGGER = "upscaled.api.request_log"


@pytest.fixture
def lines(
    service: Service, caplog: pytest.LogCaptureFixture
) -> Callable[[int], list[dict[str, Any]]]:
    """Waits for so many log lines, each written after its answer, and gives their facts."""
    report = service.app.state.report  # of the service that all tests share
    wait_until(lambda: report.under_way == 0)
    report.tell()
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


def test_a_success_leaves_one_line_that_tells_it_all(service: Service, lines: Lines) -> None:
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
        "result_width_px": 160,
        "result_height_px": 128,
        "model": "resize",
        "engine": "pillow nearest",
        "queue_ms": 1.0,
        "decode_ms": 2.0,
        "network_ms": 250.0,
        "encode_ms": 3.0,
    }


def test_the_line_names_the_model_asked_for_and_what_it_was_tempered_with(
    make_service: Callable[..., Service], lines: Lines
) -> None:
    service = make_service()
    service.executor.tempered_with = "upscaled-x2"
    service.upload(headers=service.headers | {"X-Upscale-Model": "upscaled-x4"})
    service.upload(headers=service.headers | {"X-Upscale-Model": "nonsense"})
    upscaled, refused = lines(2)
    assert (upscaled["model"], upscaled["requested_model"]) == ("upscaled-x4", "upscaled-x4")
    assert upscaled["tempered_with"] == "upscaled-x2"
    assert refused["error_code"] == "invalid_parameter"
    assert not {"model", "requested_model", "tempered_with"} & set(refused)


def test_a_refusal_says_why(service: Service, lines: Lines) -> None:
    service.upload(b"garbage")
    service.send_json({"image_url": "http://10.0.0.1/photo", "scale": 2})
    service.get("/nothing")
    first, second, third = lines(3)
    assert (first["status"], first["error_code"]) == (400, "malformed_image")
    assert "10.0.0.1" in second["error_detail"]
    assert (third["route"], third["error_code"]) == ("other", "not_found")
    assert {line["outcome"] for line in (first, second, third)} == {"refused"}


def test_a_client_that_left_is_told_from_a_failure(
    make_service: Callable[..., Service], lines: Lines
) -> None:
    executor = HangingExecutor()
    service = make_service(executor)
    with pytest.raises(requests.Timeout):
        service.upload(timeout=0.5)
    (line,) = lines(1)
    assert (line["status"], line["outcome"], line["error_code"]) == (499, "gone", "client_gone")


def test_probes_are_told_of_only_where_they_fail(
    make_service: Callable[..., Service], lines: Lines
) -> None:
    executor = ResizingExecutor()
    service = make_service(executor)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert service.get(path).status_code == 200
    executor.is_available = False
    assert service.get("/readyz").status_code == 503
    (line,) = lines(1)
    assert (line["route"], line["status"], line["outcome"]) == ("/readyz", 503, "failed")


def test_a_method_that_a_client_makes_up_is_no_name(service: Service, lines: Lines) -> None:
    requests.request("SECRET", f"{service.url}/healthz", timeout=10)
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


def test_what_nobody_foresaw_is_logged_with_its_trace_and_answered_without(
    make_service: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(FailingExecutor(ValueError("a secret")))
    assert "secret" not in assert_error(service.upload(), 500, "internal_error")
    wait_until(lambda: bool([each for each in caplog.records if each.exc_info]))
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.name == "upscaled.api.wire.exchange"
    assert "ValueError: a secret" in caplog.text
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["level"]) == ("request_failed", "error")
    assert line["exception"].endswith("ValueError: a secret")


def test_an_internal_error_s_detail_is_logged(
    make_service: Callable[..., Service], lines: Lines
) -> None:
    service = make_service(FailingExecutor(InternalError(detail="two workers died")))
    service.upload()
    assert lines(1)[-1]["error_detail"] == "two workers died"
