"""Build the application: its routes, its middleware, and its background tasks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from upscaled.api import middleware
from upscaled.api.admin.app import AdminDispatchMiddleware, create_admin_app
from upscaled.api.billing import release_pending_credits
from upscaled.api.cancellation import cancel
from upscaled.api.dependencies import Context
from upscaled.api.errors import EXCEPTION_HANDLERS
from upscaled.api.job_runner import JobRunner
from upscaled.api.memory import UnsentResponses, build_budget
from upscaled.api.openapi import Document, add_settings, generate_document
from upscaled.api.progress import ProgressRelay, ProgressTracker
from upscaled.api.protocol.registry import build_connections
from upscaled.api.readiness import AutoChoiceAgreement, SharedFolder, StateProbe
from upscaled.api.routes import credits, jobs, models, ops, pages, progress, results, upscale
from upscaled.api.telemetry.access_log import Reporter, log_request
from upscaled.api.telemetry.metrics import Metrics
from upscaled.api.telemetry.tracing import Tracing, open_tracing
from upscaled.api.telemetry.usage_recorder import UsageRecorder
from upscaled.api.webhook_sender import WebhookSender
from upscaled.config import Settings
from upscaled.errors import ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.fetch.messages import FetchOptions
from upscaled.logs import event
from upscaled.pool.executor import Executor
from upscaled.state import DatabaseFailed, State, StateError

SWEEP_EVERY_S: Final = 60.0
# For steps that block for a moment: database, disk, header. Python's own default is too low: on
# two cores it has six.
THREADS: Final = 16
_ENDPOINTS: Final = (upscale, jobs, credits, models, progress, results, ops)

_logger: Final = logging.getLogger(__name__)


def create_app(settings: Settings, executor: Executor, state: State, restarts: int = 0) -> FastAPI:
    """Build the HTTP service. Its lifespan starts and stops `executor`; `state` stays open.

    restarts: front ends that its supervisor has replaced so far.
    """
    tracing = open_tracing(settings)
    context = _build_context(settings, executor, state, tracing)
    context.metrics.front_end_restarts.inc(restarts)
    admin = create_admin_app(context) if settings.admin_keys else None
    beside = [Middleware(AdminDispatchMiddleware, admin=admin)] if admin else []
    app = FastAPI(
        lifespan=_lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[
            *([] if settings.admin_port else beside),
            Middleware(middleware.LingeringCloseMiddleware),
            *middleware.allow_origins(settings.cors_origins),
            Middleware(middleware.AccessRecordMiddleware, reporter=context.reporter),
        ],
        redirect_slashes=False,
        openapi_url=None,  # `routes.pages` serves it, with its headers
        # Its spans hold paths, so the names of results; ours: `upscaled.api.telemetry.tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routers = [*(module.router for module in _ENDPOINTS), pages.build_router(settings)]
    for router in routers:
        app.include_router(router)
    document = add_settings(_document(), settings)
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.state.context = context
    app.state.admin = admin
    app.state.routes = [route for router in routers for route in router.routes]
    app.state.tracing = tracing
    app.state.connections = build_connections(settings)
    return app


def _build_context(
    settings: Settings, executor: Executor, state: State, tracing: Tracing | None
) -> Context:
    """Put together what all requests share."""
    metrics, progress_tracker, usage = Metrics(), ProgressTracker(), UsageRecorder(state.usage)
    observers = [
        metrics.observe,
        *([tracing.observe] if tracing else []),  # gives the log its trace's id
        log_request,
        usage.observe,
    ]
    fetcher, budget = FetchClient(FetchOptions.of(settings)), build_budget(settings)
    is_shared = state.database.is_server or bool(settings.cluster)
    agreement = AutoChoiceAgreement(executor, state, is_needed=is_shared)
    relay_url = settings.advertised_url if state.database.is_server else ""
    context = Context(
        settings,
        executor,
        state,
        metrics=metrics,
        fetcher=fetcher,
        budget=budget,
        unsent=UnsentResponses(),
        progress=progress_tracker,
        relay=ProgressRelay(relay_url, state.under_way, progress_tracker),
        job_runner=JobRunner(
            settings,
            executor,
            state,
            metrics=metrics,
            fetcher=fetcher,
            budget=budget,
            agreement=agreement,
        ),
        webhook_sender=WebhookSender(settings, state, fetcher=fetcher, metrics=metrics),
        state_probe=StateProbe(state),
        auto_choice=agreement,
        reporter=Reporter(observers),
        usage=usage,
    )
    metrics.open_requests.set_function(lambda: context.reporter.in_flight)
    metrics.credits_pending.set_function(lambda: len(state.credits.pending))
    metrics.state_works.set_function(lambda: not context.state_probe.trouble)
    return context


@cache
def _document() -> Document:
    """Return what all applications of this process have in common; it takes 0.1 s to generate."""
    return generate_document([route for each in _ENDPOINTS for route in each.router.routes])


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="front-end")
    asyncio.get_running_loop().set_default_executor(threads)
    await context.executor.start()
    await context.state_probe.check()
    if not context.state_probe.trouble:
        with suppress(DatabaseFailed):  # the probe reports it, and requests open what is missing
            await asyncio.to_thread(context.state.database.open_connections)
    background = [
        asyncio.create_task(_sweep_every_minute(context)),
        asyncio.create_task(context.job_runner.run_forever()),
        asyncio.create_task(context.webhook_sender.run_forever()),
        asyncio.create_task(context.state_probe.run_forever()),
        asyncio.create_task(context.auto_choice.run_forever()),
        asyncio.create_task(SharedFolder(context.state).run_forever()),
        asyncio.create_task(release_pending_credits(context.state, context.metrics)),
        asyncio.create_task(context.usage.run_forever()),
    ]
    try:
        yield
    finally:
        await cancel(*background)
        await context.executor.stop(context.settings.shutdown_grace_s)
        await context.fetcher.close()
        await context.reporter.close()
        await context.usage.close()
        if app.state.tracing:
            await asyncio.to_thread(app.state.tracing.close)


async def _sweep_every_minute(context: Context) -> None:
    """Delete expired results. A sweep that fails is only late: no expired result is served.

    Of failures in a row the first one is logged with its trace, unless its text says enough: the
    database, a disk or a bucket that does not work.
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
            is_known = isinstance(error, StateError | ServiceError | OSError)
            reason = error.detail if isinstance(error, ServiceError) else error
            trace = None if has_failed or is_known else error
            _logger.error("the sweep failed: %s", reason, exc_info=trace, extra=fields)
            has_failed = True
        await asyncio.sleep(SWEEP_EVERY_S)
