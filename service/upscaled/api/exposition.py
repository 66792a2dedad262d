"""GET /metrics: everything there is to count, as Prometheus reads it. No key is asked for."""

import asyncio
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from upscaled.api.context import context_of
from upscaled.api.pool_metrics import PoolMetrics
from upscaled.api.wire.report import Report
from upscaled.pool.stats import PoolFigures


class _Both(Collector):
    """The front end's figures and one snapshot of the workers'."""

    def __init__(self, front_end: Collector, pool: PoolFigures) -> None:
        self._parts = (front_end, PoolMetrics(pool))

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()


async def answer_metrics(request: Request) -> Response:
    """Text, or OpenMetrics for whoever prefers it. Rendered beside the event loop."""
    context = context_of(request)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    pool = context.executor.figures()
    context.metrics.expect(pool.ladders)
    figures = _Both(context.metrics.registry, pool)
    report: Report = request.app.state.report

    def render() -> bytes:
        report.tell()
        return encode(figures)

    text = await asyncio.to_thread(render)
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
