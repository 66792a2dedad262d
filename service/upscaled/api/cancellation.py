"""Cancel the work of a request whose client has disconnected; finish steps that cannot stop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.types import Receive

from upscaled.errors import InternalError

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class Client:
    """Made by `watch_client`, once the whole request body has been read."""

    def __init__(self, departure: asyncio.Task[None]) -> None:
        self._departure = departure

    def raise_if_gone(self) -> None:
        if self._departure.done():
            raise ClientGone

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. A client that goes cancels the work, and waits for it to stop.

        Raises:
            ClientGone: after the work has ended.
            InternalError: the work was cancelled, but not by this request.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self._departure}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return _result(task)
        finally:
            await _end(task)
        raise ClientGone


def _result(task: asyncio.Task[T]) -> T:
    """Seen from outside, a task that was cancelled looks as if its caller had been."""
    if task.cancelled():
        raise InternalError(detail="the work was cancelled")
    return task.result()


@asynccontextmanager
async def watch_client(receive: Receive) -> AsyncIterator[Client]:
    departure = asyncio.create_task(_wait_for_departure(receive))
    try:
        yield Client(departure)
    finally:
        await _end(departure)


async def _wait_for_departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, wait for its end and leave its outcome aside."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def run_to_end(step: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Run `step` in a thread and give its result.

    A thread cannot be cancelled. If the caller is, the step is waited for, then undone, and only
    then the cancellation goes on.
    """
    task = asyncio.create_task(asyncio.to_thread(step))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            result = await task
            if undo is not None:
                await asyncio.to_thread(undo, result)
        raise
