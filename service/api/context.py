"""What every route needs, put together once by `create_app`."""

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from service.api.body.budget import Budget
from service.api.metrics import Metrics
from service.api.progress import ProgressBoard
from service.api.source.fetch import SourceFetcher
from service.api.state_probe import StateProbe
from service.api.unread_answers import UnreadAnswers
from service.config import Settings
from service.pool.boundary import Executor
from service.state import State


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    executor: Executor
    state: State
    metrics: Metrics
    sources: SourceFetcher
    budget: Budget
    unread: UnreadAnswers
    board: ProgressBoard
    probe: StateProbe


def context_of(request: Request) -> Context:
    return cast(Context, request.app.state.context)
