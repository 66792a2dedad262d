"""Counters for Prometheus, in a registry of their own so that two apps never share figures."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from service.pool.boundary import StageTimes

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 180)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "upscaled_requests",
            "Answers by route, status and error code",
            ["route", "status", "error_code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "upscaled_request_seconds",
            "From the request's head to the answer's last byte",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "upscaled_stage_seconds",
            "One image's time in each stage",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.output_pixels = Counter(
            "upscaled_output_pixels", "Pixels delivered", registry=self.registry
        )
        self.open_requests = Gauge(
            "upscaled_open_requests", "Requests under way", registry=self.registry
        )

    def observe_stages(self, times: StageTimes) -> None:
        for stage in ("queue", "decode", "network", "encode"):
            self.stage_seconds.labels(stage).observe(getattr(times, f"{stage}_s"))


async def answer_metrics(request: Request) -> Response:
    registry = request.app.state.context.metrics.registry
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
