"""GET /healthz, GET /readyz and GET /metrics: endpoints for operators. None needs an API key."""

import asyncio
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.context import Context, context_of
from upscaled.api.telemetry.access_log import Report, facts_of
from upscaled.api.telemetry.metrics import PoolMetrics
from upscaled.errors import InternalError
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


async def answer_health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def answer_readiness(request: Request) -> Response:
    """503 is only ever given here; the body has an error's shape, the reason is in the log."""
    trouble = find_trouble(context_of(request))
    if not trouble:
        return JSONResponse({"status": "ready"})
    facts_of(request).error_code = InternalError.error_code
    facts_of(request).error_detail = trouble
    return JSONResponse(
        {"error": "Not ready", "error_code": InternalError.error_code}, status_code=503
    )


def find_trouble(context: Context) -> str:
    """Why a request sent now by a key that has none under way would fail; empty where it would not.

    A key that uses up its own share is refused; that makes nothing unready for the others.
    """
    if not context.executor.is_ready():
        return "no worker is ready"
    if not context.budget.would_take_new_key(context.settings.max_file_bytes):
        return "no memory is left for a further upload"
    return context.probe.trouble
