"""What every route needs, put together once by `create_app`."""

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from upscaled.api.image_url import SourceFetcher
from upscaled.api.memory import Budget, UnreadAnswers
from upscaled.api.progress import ProgressBoard
from upscaled.api.state_probe import StateProbe
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.pool.executor import Executor
from upscaled.state import State


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
