"""Cancel the work of a request whose client disconnects, but finish the step under way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.types import Receive

from upscaled.errors import InternalError

T = TypeVar("T")


class ClientDisconnected(Exception):
    """The client has closed the connection, so no response can be delivered."""


class Client:
    """The client of a request whose body has been read; made by `watch_client`."""

    def __init__(self, disconnect: asyncio.Task[None]) -> None:
        self._disconnect = disconnect

    def raise_if_disconnected(self) -> None:
        """Raise ClientDisconnected where no response can be delivered any more."""
        if self._disconnect.done():
            raise ClientDisconnected

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`, which is cancelled if the client disconnects.

        Raises:
            ClientDisconnected: after the work has ended.
            InternalError: the work was cancelled, but not by this request.
        """
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self._disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if task.cancelled():  # awaiting it would raise `CancelledError` here
                raise InternalError(detail="the work was cancelled")
            if task.done():
                return task.result()
        finally:
            await cancel(task)
            del task  # its error's traceback leads to this frame: they would keep each other
        raise ClientDisconnected


@asynccontextmanager
async def watch_client(receive: Receive) -> AsyncIterator[Client]:
    """Notice within the block that the client disconnects. The body must have been read."""
    disconnect = asyncio.create_task(_wait_for_disconnect(receive))
    try:
        yield Client(disconnect)
    finally:
        await cancel(disconnect)


async def run_to_end(
    step: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[object]] | None = None
) -> T:
    """Return the result of a step that cannot be cancelled, such as one in a thread.

    If the caller is cancelled, the step is awaited, then undone, and only then the cancellation
    goes on.
    """
    task = asyncio.create_task(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(Exception):
            result = await task
            if undo is not None:
                await undo(result)
        raise
    finally:
        del task  # as in `Client.run`


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their ends, whatever their outcomes."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
