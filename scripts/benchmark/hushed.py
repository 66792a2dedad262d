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
    from upscaled.api import middleware
    from upscaled.api.telemetry import access_log, metrics
    from upscaled.cli import main

    for owner, name in (
        (access_log.Reporter, "add"),
        (metrics.Metrics, "note_stored"),
        (access_log.AccessRecord, "note_work"),
        (access_log.AccessRecord, "timing"),
    ):
        setattr(owner, name, _unless_hushed(getattr(owner, name)))
    kind = middleware.AccessRecordMiddleware
    setattr(kind, "__call__", _listening(kind.__call__))  # noqa: B010
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
