import io
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.service.api.pictures import picture
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.errors import ServiceError
from upscaled.state import Swept
from upscaled.state.results import SweptResults

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]

UPSCALE: Final = {"route": "/v1/upscale"}


def read(service: Service) -> Figures:
    answer = service.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures[f"upscaled_{name}", frozenset(labels.items())]


def read_once_over(service: Service, requests_made: int) -> Figures:
    """The figures once so many requests to the upscaling route are counted."""

    def counted() -> float:
        return figure(read(service), "request_seconds_count", **UPSCALE)

    wait_until(lambda: counted() == requests_made)
    return read(service)


def test_restarts_of_the_front_end_are_counted_over_its_restarts(make_service: MakeService) -> None:
    for restarts in (0, 3):
        figures = read(make_service(restarts=restarts))
        assert figure(figures, "front_end_restarts_total") == restarts


def test_answers_times_and_pixels_are_counted(make_service: MakeService) -> None:
    service = make_service()
    url = service.upload().json()["result_url"]
    size_bytes = len(service.get(url.removeprefix(service.url)).content)
    service.upload(b"garbage")
    service.get("/nothing")
    wait_until(lambda: "not_found" in service.get("/metrics").text)
    figures = read_once_over(service, 2)
    assert figure(figures, "requests_total", **UPSCALE, status="200", error_code="") == 1
    refused = {"status": "400", "error_code": "malformed_image"}
    assert figure(figures, "requests_total", **UPSCALE, **refused) == 1
    other = {"route": "other", "status": "404", "error_code": "not_found"}
    assert figure(figures, "requests_total", **other) == 1
    assert figure(figures, "output_pixels_total") == 160 * 128
    assert figure(figures, "source_bytes_total") == len(picture())
    assert figure(figures, "result_bytes_total") == size_bytes
    assert figure(figures, "results_stored_total") == 1
    assert figure(figures, "results_stored_bytes_total") == size_bytes
    assert figure(figures, "open_requests") == 1


def test_every_stage_of_a_delivered_image_has_its_time(make_service: MakeService) -> None:
    service = make_service()
    service.upload()
    service.upload(b"garbage")
    figures = read_once_over(service, 2)
    assert figure(figures, "stage_seconds_sum", stage="network") == 0.25
    counts = {
        stage: figure(figures, "stage_seconds_count", stage=stage)
        for stage in ("receive", "queue", "decode", "network", "encode", "store", "fetch")
    }
    assert counts.pop("fetch") == 0
    assert set(counts.values()) == {1}
    for stage in ("receive", "store"):
        assert 0 < figure(figures, "stage_seconds_sum", stage=stage) < 5


def test_a_binary_answer_stores_nothing(make_service: MakeService) -> None:
    service = make_service()
    service.upload(headers=service.headers | {"Accept": "image/*"})
    figures = read_once_over(service, 1)
    assert figure(figures, "results_stored_total") == 0
    assert figure(figures, "stage_seconds_count", stage="store") == 0
    assert figure(figures, "result_bytes_total") > 100


def test_every_refusal_is_exported_as_0_before_it_first_happens(make_service: MakeService) -> None:
    figures = read(make_service())
    for kind in ServiceError.__subclasses__():
        labels = {"status": str(kind.status), "error_code": kind.error_code}
        assert figure(figures, "requests_total", **UPSCALE, **labels) == 0


def test_credits_are_counted_by_event(make_service: MakeService) -> None:
    service = make_service(metering=True, credits=2)
    service.upload()
    service.upload(b"garbage")
    service.upload()
    service.upload()
    figures = read_once_over(service, 4)
    credits = {
        event: figure(figures, "credits_total", event=event)
        for event in ("held", "captured", "released")
    }
    assert credits == {"held": 3, "captured": 2, "released": 1}
    refused = {"status": "403", "error_code": "insufficient_api_credits"}
    assert figure(figures, "requests_total", **UPSCALE, **refused) == 1


def test_the_first_sweep_measures_the_results_on_disk(make_service: MakeService) -> None:
    service = make_service()
    wait_until(lambda: figure(read(service), "data_free_bytes") > 0)
    context = service.app.state.context
    context.metrics.note_sweep(Swept(1, SweptResults(removed=2, kept=3, kept_bytes=400), 5000))
    figures = read(service)
    assert figure(figures, "results_expired_total") == 2
    assert figure(figures, "results_kept") == 3
    assert figure(figures, "results_kept_bytes") == 400
    assert figure(figures, "data_free_bytes") == 5000


def test_the_statistics_of_workers_are_exported_unchanged(make_service: MakeService) -> None:
    figures = read(make_service())
    exported = {
        name: figure(figures, name)
        for name in ("queue_images", "queue_limit_images", "running_images", "running_limit_images")
    }
    assert list(exported.values()) == [1, 32, 3, 4]
    assert figure(figures, "workers_ready") == 1
    assert figure(figures, "workers_wanted") == 2
    assert figure(figures, "worker_restarts_total") == 5
    assert figure(figures, "worker_failed_starts_total") == 6
    assert figure(figures, "decoder_deaths_total") == 7
    assert figure(figures, "worker_cpu_seconds_total") == 1.5
    assert figure(figures, "worker_resident_bytes", worker="0") == 1000
    states = {0: ("cpu:0", 1, 0, 3, 0.5), 1: ("cpu:1", 0, 1, 0, 0)}
    for number, (device, *values) in states.items():
        place = {"worker": str(number), "device": device}
        names = ("worker_up", "worker_out", "worker_images", "worker_device_seconds_total")
        assert [figure(figures, name, **place) for name in names] == values
    model = {"model": "resize"}
    assert figure(figures, "trunk_pixels_total", **model) == 900
    assert figure(figures, "device_seconds_total", **model) == 0.5
    assert figure(figures, "batches_total", **model) == 2
    assert figure(figures, "batch_windows_total", **model) == 3
    assert figure(figures, "batch_places_total", **model) == 8
    auto = {"scale": "4", "model": "realesrgan-x4plus"}
    assert figure(figures, "auto_input_pixels", **auto) == 240_100
    assert figure(figures, "auto_input_pixels", scale="4", model="upscaled-x4-faithful") == math.inf
    engine = {"scale": "2", "model": "resize", "engine": "pillow nearest", "device": "cpu"}
    assert figure(figures, "engine_info", **engine) == 1


def test_images_are_counted_by_the_model_that_made_them(make_service: MakeService) -> None:
    service = make_service()
    service.upload()
    service.upload(headers=service.headers | {"X-Upscale-Model": "upscaled-x4"})
    service.executor.tempered_with = "upscaled-x4-faithful"
    service.upload(headers=service.headers | {"X-Upscale-Model": "auto"})
    service.upload(headers=service.headers | {"X-Upscale-Model": "nonsense"})
    figures = read_once_over(service, 4)
    counted = {
        tuple(sorted(labels)): value
        for (name, labels), value in figures.items()
        if name == "upscaled_images_total"
    }

    def labels(model: str, scale: str, tempered_with: str) -> tuple[tuple[str, str], ...]:
        return (("model", model), ("scale", scale), ("tempered_with", tempered_with))

    assert counted == {
        labels("resize", "2", ""): 1,
        labels("resize", "2", "upscaled-x4-faithful"): 1,
        labels("upscaled-x4", "2", ""): 1,
        # What auto may choose is there before it is chosen.
        labels("realesrgan-x4plus", "4", "upscaled-x4-faithful"): 0,
        labels("upscaled-x4", "4", ""): 0,
        labels("upscaled-x4-faithful", "4", ""): 0,
        labels("upscaled-x2", "2", ""): 0,
    }


def test_clients_add_no_series(make_service: MakeService) -> None:
    service = make_service()

    def make_things_up(number: int) -> None:
        service.get(f"/nothing/{number}")
        service.get(f"/public/result/{number}")
        service.get(f"/v1/progress/{number}")
        requests.request(f"VERB{number}", service.url + "/healthz", timeout=60)
        service.upload(headers={"X-API-KEY": f"wrong{number}", "X-Request-Id": f"id{number}"})
        service.upload(headers=service.headers | {"X-Upscale-Model": f"model{number}"})

    make_things_up(0)
    read_once_over(service, 2)
    before = set(read(service))
    for number in range(1, 6):
        make_things_up(number)
    assert set(read_once_over(service, 12)) == before


def test_two_services_share_no_figures(make_service: MakeService) -> None:
    first, second = make_service(), make_service()
    first.upload()
    wait_until(lambda: figure(read(first), "output_pixels_total") > 0)
    assert figure(read(second), "output_pixels_total") == 0


def test_a_client_that_prefers_openmetrics_receives_openmetrics(service: Service) -> None:
    wanted = "application/openmetrics-text;version=1.0.0"
    answer = service.get("/metrics", headers={"Accept": wanted})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert "upscaled_queue_images 1.0" in answer.text


def test_a_scrape_does_not_hold_up_the_event_loop(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long rendering takes: it is done beside the loop."""

    may_end, rendering = threading.Event(), threading.Event()

    def render_slowly(_: Any) -> bytes:
        rendering.set()
        may_end.wait(60)
        return b""

    choose: Any = lambda accept: (render_slowly, "text/plain")  # noqa: E731
    monkeypatch.setattr("upscaled.api.routes.ops.choose_encoder", choose)
    service = make_service()
    with ThreadPoolExecutor(1) as thread:
        scrape = thread.submit(service.get, "/metrics", timeout=60)
        assert rendering.wait(60)
        assert service.get("/healthz").status_code == 200
        assert not scrape.done()
        may_end.set()
        assert scrape.result().status_code == 200


def test_figures_hold_nothing_that_a_client_sent(make_service: MakeService) -> None:
    service = make_service()
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    service.upload(files={"image": ("very-private.png", file.getvalue())})
    service.send_json({"image_url": "http://10.0.0.1/very/private.png", "scale": 2})
    read_once_over(service, 2)
    text = service.get("/metrics").text
    assert not [word for word in ("private", "10.0.0.1", service.key, "test") if word in text]
