from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from tests.service.api.serving import Service
from tests.service.api.waiting import wait_until


def read(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = service.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_answers_times_and_pixels_are_counted(make_service: Callable[..., Service]) -> None:
    service = make_service()
    service.upload()
    service.upload(b"garbage")
    service.get("/nothing")
    wait_until(lambda: "not_found" in service.get("/metrics").text)
    figures = read(service)

    def figure(name: str, **labels: str) -> float:
        return figures[name, frozenset(labels.items())]

    upscale = {"route": "/v1/upscale"}
    assert figure("upscaled_requests_total", **upscale, status="200", error_code="") == 1
    refused = {"status": "400", "error_code": "malformed_image"}
    assert figure("upscaled_requests_total", **upscale, **refused) == 1
    other = {"route": "other", "status": "404", "error_code": "not_found"}
    assert figure("upscaled_requests_total", **other) == 1
    assert figure("upscaled_request_seconds_count", **upscale) == 2
    assert figure("upscaled_stage_seconds_sum", stage="network") == 0.25
    assert figure("upscaled_output_pixels_total") == 160 * 128
    assert figure("upscaled_open_requests") == 1


def test_paths_that_clients_make_up_add_no_series(make_service: Callable[..., Service]) -> None:
    service = make_service()
    service.get("/nothing")
    before = len(read(service))
    read(service)
    for number in range(20):
        service.get(f"/nothing/{number}")
        service.get(f"/public/result/{number}")
    assert len(read(service)) < before + 40


def test_two_services_share_no_figures(make_service: Callable[..., Service]) -> None:
    first, second = make_service(), make_service()
    first.upload()
    counted = ("upscaled_output_pixels_total", frozenset[tuple[str, str]]())
    assert (read(first)[counted] > 0, read(second)[counted]) == (True, 0)
