"""Spans as they arrive at a real OTLP receiver on loopback."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service.api.executors import FailingExecutor
from tests.service.api.serving import MakeService
from tests.service.api.waiting import wait_until
from upscaled.api.telemetry.access_log import STAGES
from upscaled.api.telemetry.tracing import open_tracing
from upscaled.config import load_settings
from upscaled.errors import InternalError

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


@dataclass
class Receiver:
    """Receiver that records its requests."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> Span:
        (span,) = [span for span in self.spans() if span.name == name]
        return span


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.paths.append(self.path)
            receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield receiver


def attributes_of(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_and_its_stages_arrive_below_the_client_s_span(
    make_service: MakeService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "upscaled.api.telemetry.access_log")
    service = make_service(traces=True)
    parent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    service.executor.tempered_with = "upscaled-x2"
    sent = {"traceparent": parent, "tracestate": "a=b", "X-Upscale-Model": "upscaled-x4"}
    service.upload(headers=service.headers | sent)
    wait_until(lambda: len(receiver.spans()) == 7)
    lines = [each for each in caplog.records if each.name == "upscaled.api.telemetry.access_log"]
    # Requests that another test has left may end meanwhile, and are not traced.
    traced = [each for each in lines if getattr(each, "fields", {}).get("trace_id")]
    assert [getattr(each, "fields", {})["trace_id"] for each in traced] == [TRACE_ID]
    assert set(receiver.paths) == {"/v1/traces"}
    request = receiver.named("POST /v1/upscale")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert request.trace_state == "a=b"
    attributes = attributes_of(request)
    assert attributes["http.response.status_code"] == 200
    assert attributes["http.route"] == "/v1/upscale"
    assert (attributes["upscaled.model"], attributes["upscaled.scale"]) == ("upscaled-x4", 2)
    assert attributes["upscaled.requested_model"] == "upscaled-x4"
    assert attributes["upscaled.tempered_with"] == "upscaled-x2"
    stages = [span for span in receiver.spans() if span.name != request.name]
    assert {span.name for span in stages} == set(STAGES) - {"fetch"}
    for span in stages:
        assert span.parent_span_id == request.span_id
        assert span.trace_id == request.trace_id
    network = receiver.named("network")
    assert network.end_time_unix_nano - network.start_time_unix_nano == pytest.approx(0.25e9, 1e-3)
    assert request.start_time_unix_nano <= receiver.named("receive").start_time_unix_nano


def test_a_request_without_a_parent_begins_a_trace(
    make_service: MakeService, receiver: Receiver
) -> None:
    service = make_service(traces=True)
    for nonsense in ("", "no-trace", f"00-{'0' * 32}-{PARENT_ID}-01"):
        service.get("/v1/credits", headers=service.headers | {"traceparent": nonsense})
    wait_until(lambda: len(receiver.spans()) == 3)
    assert {span.parent_span_id for span in receiver.spans()} == {b""}
    assert len({span.trace_id for span in receiver.spans()}) == 3


def test_a_request_that_its_client_does_not_sample_has_no_span(
    make_service: MakeService, receiver: Receiver
) -> None:
    service = make_service(traces=True)
    quiet = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
    service.upload(headers=service.headers | quiet)
    service.get("/v1/credits", headers=service.headers)
    wait_until(lambda: bool(receiver.spans()))
    assert [span.name for span in receiver.spans()] == ["GET /v1/credits"]


def test_a_failure_is_marked_and_a_refusal_is_not(
    make_service: MakeService, receiver: Receiver
) -> None:
    failing = make_service(FailingExecutor(InternalError()), traces=True)
    failing.upload()
    failing.upload(b"garbage")
    wait_until(lambda: sum(span.name == "POST /v1/upscale" for span in receiver.spans()) == 2)
    spans = [span for span in receiver.spans() if span.name == "POST /v1/upscale"]
    statuses = {attributes_of(span)["error.type"]: span.status.code for span in spans}
    assert statuses == {"internal_error": 2, "malformed_image": 0}


def test_no_span_holds_data_of_a_client(make_service: MakeService, receiver: Receiver) -> None:
    service = make_service(traces=True)
    url = service.upload(files={"image": ("private.png", b"garbage")}, params={"q": "private"})
    url = service.upload().json()["result_url"]
    service.get(url.removeprefix(service.url))
    service.get("/private/path")
    service.send_json({"image_url": "http://10.0.0.1/private?secret", "scale": 2})
    wait_until(lambda: sum(span.parent_span_id == b"" for span in receiver.spans()) == 5)
    sent = b"".join(receiver.bodies)
    name = url.rpartition("/")[2]
    for word in (b"private", b"secret", service.key.encode(), name.encode(), b"10.0.0.1"):
        assert word not in sent


def test_pending_spans_are_exported_at_the_end(
    make_service: MakeService, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from tests.service.api.serving import serve

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with serve(tmp_path / "ended", traces=True) as service:
        service.get("/healthz")
        assert receiver.spans() == []
    assert [span.name for span in receiver.spans()] == ["GET /healthz"]


def test_without_the_setting_nothing_is_loaded_and_no_receiver_called(
    make_service: MakeService, receiver: Receiver
) -> None:
    """Also where the environment names a receiver, as some clusters have it everywhere."""
    assert open_tracing(load_settings({})) is None
    service = make_service()
    service.upload()
    service.get("/metrics")
    assert receiver.paths == []


def test_a_receiver_that_is_down_costs_no_answer(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    service = make_service(traces=True)
    assert service.upload().status_code == 200
