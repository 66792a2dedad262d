"""Reading a request body whole: counted, timed, never longer than allowed."""

import asyncio

from starlette.requests import Request

from upscaled.api.body.budget import Share
from upscaled.api.wire.client import ClientGone
from upscaled.errors import FileSizeTooLarge, InvalidRequestBody

# What a form adds to its file: boundaries, part headers, the other fields.
OVERHEAD_BYTES = 64 * 1024


async def read_body(request: Request, share: Share, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The body, of at most `limit_bytes`, counted against `share`.

    Raises:
        FileSizeTooLarge: declared longer, at once; or found longer, reading no further.
        InvalidRequestBody: not complete within `timeout_s`.
        RateLimitExceeded: too many bodies of the key, or of all keys, are arriving at once.
        ClientGone: the client left before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise FileSizeTooLarge(detail=f"declared {declared[:20]} bytes")
    try:
        with share.body():
            async with asyncio.timeout(timeout_s):
                return await _read_counted(request, share, limit_bytes)
    except TimeoutError:
        raise InvalidRequestBody("Request body not received in time") from None


async def _read_counted(request: Request, share: Share, limit_bytes: int) -> bytes:
    body = bytearray()  # not a list: a client may send its body in pieces of one byte
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        if len(body) + len(chunk) > limit_bytes:
            raise FileSizeTooLarge(detail=f"read {len(body) + len(chunk)} bytes")
        share.take(len(chunk))
        body += chunk
        if not message.get("more_body", False):
            return bytes(body)
