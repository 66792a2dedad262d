"""GET and HEAD /public/result/{file_name}: a stored result, for whoever knows its name."""

import asyncio
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.context import context_of
from service.errors import NotFound
from service.state import StoredResult

_CHUNK_BYTES: Final = 256 * 1024


async def answer_result(request: Request) -> Response:
    """No Range, no redirect: true length and type, and 404 from the moment of expiry."""
    results = context_of(request).state.results
    stored = await asyncio.to_thread(results.find, request.path_params["file_name"])
    if stored is None:
        raise NotFound
    headers = {
        "Content-Length": str(stored.size_bytes),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    if request.method == "HEAD":
        return Response(headers=headers, media_type=stored.media_type)
    file = await asyncio.to_thread(_open, stored)
    return StreamingResponse(_read(file), headers=headers, media_type=stored.media_type)


def _open(stored: StoredResult) -> BinaryIO:
    try:
        return stored.path.open("rb")
    except FileNotFoundError:
        raise NotFound from None


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
    finally:
        file.close()
