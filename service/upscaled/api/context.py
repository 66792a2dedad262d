"""The parts of the service that endpoints depend on, put together once by `create_app`."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from upscaled.api.image_url import SourceFetcher
from upscaled.api.memory import MemoryBudget, UnreadResponses
from upscaled.api.progress import ProgressBoard
from upscaled.api.state_probe import StateProbe
from upscaled.api.telemetry.access_log import AccessRecord, Reporter, record_of
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.pool.executor import Executor
from upscaled.state import State


@dataclass(frozen=True, slots=True)
class Context:
    """What all requests share."""

    settings: Settings
    executor: Executor
    state: State
    metrics: Metrics
    sources: SourceFetcher
    budget: MemoryBudget
    unread: UnreadResponses
    board: ProgressBoard
    probe: StateProbe
    reporter: Reporter


async def _get_context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


async def _get_record(request: Request) -> AccessRecord:
    return record_of(request.scope)


AppContext = Annotated[Context, Depends(_get_context)]
Record = Annotated[AccessRecord, Depends(_get_record)]
"""The access record of the request, opened by the middleware."""
