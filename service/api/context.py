"""What every route needs, put together once by `create_app`."""

from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request

from service.api.metrics import Metrics
from service.config import Settings
from service.pool.boundary import Executor
from service.state import State


class Draining:
    """Whether the server is about to stop: set once, never unset.

    Readiness turns false first, so that a load balancer sends no more work while the images under
    way are finished.
    """

    def __init__(self) -> None:
        self._is_set = False

    def start(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


@dataclass(frozen=True, slots=True)
class Context:
    settings: Settings
    executor: Executor
    state: State
    metrics: Metrics
    draining: Draining = field(default_factory=Draining)


def context_of(request: Request) -> Context:
    return cast(Context, request.app.state.context)
