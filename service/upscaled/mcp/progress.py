"""Notify the MCP client that waits for an upscale of its progress.

A client that sends a progress token with its call is notified of how many tiles are done. The
service streams that by the id of the request (`GET /v1/progress/{id}`).
"""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol
from uuid import uuid4

import anyio
from mcp.server.mcpserver.exceptions import ToolError

from upscaled.mcp.service_client import ServiceClient


class Listener(Protocol):
    """Receiver of progress: the SDK's `Context`, which drops it unless the client asked for it."""

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None: ...


@asynccontextmanager
async def reporting(service: ServiceClient, listener: Listener) -> AsyncIterator[str]:
    """Report the progress of one upscale, which the block awaits.

    Where the service gives no progress, none is reported, and the upscale goes on.

    Yields:
        The id to send the upscale with.
    """
    request_id, refusal = str(uuid4()), None
    async with anyio.create_task_group() as group:
        group.start_soon(_report, service, listener, request_id)
        try:
            yield request_id
        except ToolError as error:  # a group would wrap it
            refusal = error
        group.cancel_scope.cancel()
    if refusal is not None:
        raise refusal


async def _report(service: ServiceClient, listener: Listener, request_id: str) -> None:
    most = 0  # progress never goes back, but an image that is begun anew does
    async with aclosing(service.watch(request_id)) as steps:
        async for done, total in steps:
            if done > most:
                most = done
                await listener.report_progress(done, total, f"{done} of {total} tiles")
