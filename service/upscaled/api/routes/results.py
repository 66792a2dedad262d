"""GET and HEAD /public/result/{file_name}: a stored result, for whoever knows its name."""

import asyncio
from collections.abc import AsyncIterator
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from upscaled.api.context import context_of
from upscaled.errors import NotFound
from upscaled.fetch.url import SourceUrl
from upscaled.state import StoredResult

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
    return _FileResponse(file, headers, stored.media_type)


class _FileResponse(StreamingResponse):
    def __init__(self, file: BinaryIO, headers: dict[str, str], media_type: str) -> None:
        super().__init__(_read(file), headers=headers, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _open(stored: StoredResult) -> BinaryIO:
    try:
        return stored.path.open("rb")
    except FileNotFoundError:
        raise NotFound from None


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        yield chunk


RESULT_PATH: Final = "/public/result/"


def build_result_url(request: Request, public_base_url: str, file_name: str) -> str:
    """Below the public base, or where that is empty below the address the client called."""
    return f"{public_base_url or _called_url(request)}{RESULT_PATH}{file_name}"


def find_result_name(url: SourceUrl) -> str | None:
    """The file name in what looks like a result URL, of whatever server.

    A proxy may have changed scheme, host, port and the path before it. The name tells: whoever
    knows one of ours, which nobody can guess, may have the result.
    """
    _, mark, file_name = url.path.rpartition(RESULT_PATH)
    return file_name if mark else None


def _called_url(request: Request) -> str:
    """By the Host header where it is sane (Starlette checks its characters), else the socket."""
    called = str(request.base_url).rstrip("/")
    try:
        _ = urlsplit(called).port
    except ValueError:
        host, port = request.scope["server"]
        return f"{request.url.scheme}://{host}:{port}"
    return called
