"""GET /healthz, GET /readyz and GET /metrics: endpoints for operators. None needs an API key."""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from upscaled.api import schemas
from upscaled.api.dependencies import AppContext, Context, Record
from upscaled.api.telemetry.pool_metrics import PoolMetrics
from upscaled.errors import InternalError
from upscaled.pool.executor import PoolStats

router = APIRouter()


class _AllMetrics(Collector):
    """The front end's metrics and one snapshot of the workers'."""

    def __init__(self, front_end: Collector, pool: PoolStats) -> None:
        self._parts = (front_end, PoolMetrics(pool))

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()


@router.head("/healthz", include_in_schema=False)
@router.get(
    "/healthz",
    operation_id="get_health",
    summary="Check that the process answers",
    response_description="It does",
)
async def get_health() -> schemas.Live:
    """Answer as long as the process runs."""
    return schemas.Live(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Check that an image sent now would be accepted",
    response_model=schemas.Ready,
    response_description="It would",
    responses={503: {"model": schemas.Error, "description": "It would not"}},
)
async def get_readiness(context: AppContext, record: Record) -> Response:
    """Respond 503, as no other endpoint does, while not ready; the reason is in the log."""
    trouble = find_trouble(context)
    if not trouble:
        return JSONResponse({"status": "ready"})
    record.error_code, record.error_detail = InternalError.error_code, trouble
    return JSONResponse(
        {"error": "Not ready", "error_code": InternalError.error_code}, status_code=503
    )


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    response_description="In its text format, or as OpenMetrics for a client that prefers it",
)
async def get_metrics(request: Request, context: AppContext) -> Response:
    """Render all metrics in a thread, beside the event loop."""
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    pool = context.executor.stats()
    context.metrics.expect(pool.ladders)
    metrics = _AllMetrics(context.metrics.registry, pool)

    def render() -> bytes:
        context.reporter.flush()
        return encode(metrics)

    text = await asyncio.to_thread(render)
    return Response(text, headers={"Content-Type": media_type})


def find_trouble(context: Context) -> str:
    """Return why a request would fail that an idle key sends now; empty where it would not.

    A key that uses up its own share is refused; that makes nothing unready for the others.
    """
    if not context.executor.is_ready():
        return "no worker is ready"
    if not context.budget.has_room_for_new_key(context.settings.max_file_bytes):
        return "no memory is left for a further upload"
    return context.state_probe.trouble or context.auto_choice.trouble
