"""The application: its routes, its middleware and its life from start to stop."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from upscaled.api.billing import settle_owed_for_ever
from upscaled.api.context import Context
from upscaled.api.errors import EXCEPTION_HANDLERS
from upscaled.api.image_url import SourceFetcher
from upscaled.api.memory import UnreadAnswers, build_budget
from upscaled.api.middleware import ExchangeMiddleware, UnreadBodyMiddleware
from upscaled.api.progress import ProgressBoard
from upscaled.api.protocol.registry import build_connections
from upscaled.api.routes.credits import answer_credits
from upscaled.api.routes.documentation import build_documentation_routes
from upscaled.api.routes.models import answer_models
from upscaled.api.routes.ops import answer_health, answer_metrics, answer_readiness
from upscaled.api.routes.pages import build_page_routes
from upscaled.api.routes.progress import PROGRESS_PATH, answer_progress
from upscaled.api.routes.results import RESULT_PATH, answer_result
from upscaled.api.routes.upscale import answer_upscale
from upscaled.api.state_probe import StateProbe
from upscaled.api.telemetry.access_log import Report, log_exchange
from upscaled.api.telemetry.metrics import Metrics
from upscaled.api.telemetry.tracing import open_tracing
from upscaled.config import Settings
from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.state import State

SWEEP_EVERY_S: Final = 60.0
# For what blocks for a moment: the database, the disk, a header. By default two cores get six.
THREADS: Final = 16

# A GET route answers HEAD too. Clients that join a base URL and a path write a slash at the end.
ROUTES: Final[tuple[BaseRoute, ...]] = (
    Route("/v1/upscale", answer_upscale, methods=["POST"]),
    Route("/v1/upscale/", answer_upscale, methods=["POST"]),
    Route("/v1/credits", answer_credits, methods=["GET"]),
    Route("/v1/models", answer_models, methods=["GET"]),
    Route(PROGRESS_PATH + "{request_id}", answer_progress, methods=["GET"]),
    Route(RESULT_PATH + "{file_name}", answer_result, methods=["GET"]),
    Route("/healthz", answer_health, methods=["GET"]),
    Route("/readyz", answer_readiness, methods=["GET"]),
    Route("/metrics", answer_metrics, methods=["GET"]),
)

_logger: Final = logging.getLogger(__name__)


def create_app(settings: Settings, executor: Executor, state: State) -> FastAPI:
    """The whole HTTP service. Its lifespan starts and stops `executor`; `state` stays open."""
    context = Context(
        settings,
        executor,
        state,
        metrics=Metrics(),
        sources=SourceFetcher(settings),
        budget=build_budget(settings),
        unread=UnreadAnswers(),
        board=ProgressBoard(),
        probe=StateProbe(state.find_trouble),
    )
    tracing = open_tracing(settings)
    report = Report(
        [
            context.metrics.observe,
            *([tracing.observe] if tracing else []),  # gives the log its trace's id
            log_exchange,
        ]
    )
    context.metrics.open_requests.set_function(lambda: report.under_way)
    context.metrics.credits_owed.set_function(lambda: len(state.credits.owed))
    context.metrics.state_works.set_function(lambda: not context.probe.trouble)
    app = FastAPI(
        title="upscaled",
        routes=[*ROUTES, *build_page_routes(), *build_documentation_routes()],
        lifespan=_lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[
            Middleware(UnreadBodyMiddleware),
            Middleware(ExchangeMiddleware, report=report),
        ],
        redirect_slashes=False,
        openapi_url=None,
        # Its spans hold paths, so the names of results; ours: `upscaled.api.telemetry.tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.context = context
    app.state.tracing = tracing
    app.state.report = report
    app.state.connections = build_connections(settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="front-end")
    asyncio.get_running_loop().set_default_executor(threads)
    await context.executor.start()
    await context.probe.check()
    chores = [
        asyncio.create_task(_sweep_for_ever(context)),
        asyncio.create_task(context.probe.run_for_ever()),
        asyncio.create_task(settle_owed_for_ever(context.state, context.metrics.note_credit)),
    ]
    try:
        yield
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.wait(chores)
        await context.executor.stop(context.settings.shutdown_grace_s)
        await app.state.report.close()
        if app.state.tracing:
            await asyncio.to_thread(app.state.tracing.close)


async def _sweep_for_ever(context: Context) -> None:
    """Sweep every minute. One that fails is only late: the store itself refuses what has expired.

    The first of failures in a row is logged with its trace.
    """
    has_failed = False
    while True:
        try:
            swept = await asyncio.to_thread(context.state.sweep)
            has_failed = False
            context.metrics.note_sweep(swept)
            if swept.results.failed:
                fields = event("sweep_failed", files=swept.results.failed)
                _logger.warning("files of results could not be swept", extra=fields)
        except Exception as error:
            fields = event("sweep_failed")
            trace = None if has_failed else error
            _logger.error("the sweep failed: %s", error, exc_info=trace, extra=fields)
            has_failed = True
        await asyncio.sleep(SWEEP_EVERY_S)
