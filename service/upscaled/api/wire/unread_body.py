"""Answering a client that is still sending its body.

A server that closes on unread bytes makes the kernel reset the connection, and the client loses
the answer. So the answer goes out first, then a bounded amount of the body is read and thrown
away, and only then the connection is closed.
"""

import asyncio
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A body this small has mostly arrived with its head: reading it keeps the connection usable.
SMALL_BODY_BYTES: Final = 64 * 1024
SMALL_BODY_S: Final = 0.05

DISCARD_BYTES: Final = 64 * 1024 * 1024
DISCARD_S: Final = 10.0
DISCARD_IDLE_S: Final = 2.0


class UnreadBodyMiddleware:
    """Outermost: whatever an inner part answers early reaches the client."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive)
        is_closing = False

        async def send_then_discard(message: Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start":
                await body.read_if_small()
                is_closing = not body.is_ended
                if is_closing:
                    MutableHeaders(scope=message)["Connection"] = "close"
            elif is_closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self.app(scope, body.receive, send_then_discard)


class _Body:
    """The request body as far as it has been read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        # A client that waits for "100 Continue" sends nothing before it; reading would send it.
        self._is_small = (
            length.isascii()
            and length.isdigit()
            and int(length[:10]) <= SMALL_BODY_BYTES
            and "expect" not in headers
        )
        self._receive = receive
        self.is_ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_ended = True
        return message

    async def read_if_small(self) -> None:
        if self._is_small and not self.is_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(SMALL_BODY_S):
                    await self._read(SMALL_BODY_BYTES)

    async def discard(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                await self._read(DISCARD_BYTES)

    async def _read(self, limit_bytes: int) -> None:
        size_bytes = 0
        while not self.is_ended and size_bytes <= limit_bytes:
            async with asyncio.timeout(DISCARD_IDLE_S):
                message = await self.receive()
            size_bytes += len(message.get("body", b""))


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
