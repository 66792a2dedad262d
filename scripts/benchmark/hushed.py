"""The service, which counts, times and logs nothing of requests that ask it to hush.

One process for both kinds: two would differ by more than what is measured, in where their memory
lies and what the kernel does with them. For a process of its own:

    python -c "from scripts.benchmark.hushed import serve; serve()" serve --port 8000
"""

from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any

from starlette.types import Receive, Scope, Send

HEADER = "X-Hush"


_is_hushed: ContextVar[bool] = ContextVar("is_hushed", default=False)


def serve() -> None:
    """Run `upscaled` so."""
    from upscaled.api import facts, metrics
    from upscaled.api.wire import exchange, report
    from upscaled.cli import main

    for owner, name in (
        (report.Report, "add"),
        (metrics.Metrics, "note_stored"),
        (facts.Facts, "note_work"),
        (facts.Facts, "timing"),
    ):
        setattr(owner, name, _unless_hushed(getattr(owner, name)))
    middleware = exchange.ExchangeMiddleware
    setattr(middleware, "__call__", _listening(middleware.__call__))  # noqa: B010
    main()


def _unless_hushed(call: Callable[..., Any]) -> Callable[..., Any]:
    def perhaps(*arguments: object) -> object:
        return nullcontext() if _is_hushed.get() else call(*arguments)

    return perhaps


def _listening(call: Callable[..., Any]) -> Callable[..., Any]:
    wanted = HEADER.lower().encode()

    async def answer(self: object, scope: Scope, receive: Receive, send: Send) -> None:
        _is_hushed.set(any(name == wanted for name, _ in scope.get("headers", ())))
        await call(self, scope, receive, send)

    return answer
