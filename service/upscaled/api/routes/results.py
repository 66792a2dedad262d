"""GET /public/result/{file_name}: serve a stored result; build its URL, and recognise it again."""

from collections.abc import AsyncIterator
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from upscaled.api import schemas
from upscaled.api.dependencies import AppContext
from upscaled.errors import InternalError, NotFound
from upscaled.fetch.url import SourceUrl
from upscaled.state import OpenedResult, StoredResult

RESULT_PATH: Final = "/public/result/"

router = APIRouter()


async def _find(context: AppContext, file_name: str) -> StoredResult:
    stored = await context.state.results.find(file_name)
    if stored is None:
        raise NotFound
    return stored


async def _open(context: AppContext, file_name: str) -> AsyncIterator[OpenedResult]:
    """Hold the result open until the response is sent."""
    async with context.state.results.open(file_name) as opened:
        if opened is None:
            raise NotFound
        yield opened


@router.head(RESULT_PATH + "{file_name}", include_in_schema=False)
async def head_result(stored: Annotated[StoredResult, Depends(_find)]) -> Response:
    """Return the headers of a stored result, without opening it."""
    return Response(headers=_headers(stored), media_type=stored.media_type)


@router.get(
    RESULT_PATH + "{file_name}",
    operation_id="get_result",
    summary="Download a result",
    description="Needs no key: the URL alone is the permission, until the result expires.",
    response_class=Response,
    response_description="The image",
    responses={
        200: {"content": {"image/jpeg": schemas.BINARY, "image/png": schemas.BINARY}},
        **schemas.describe_errors(NotFound, InternalError),
    },
)
async def get_result(opened: Annotated[OpenedResult, Depends(_open)]) -> Response:
    """Stream a stored result: true length and type, no Range, and 404 from its expiry on."""
    stored = opened.stored
    return StreamingResponse(opened.chunks, headers=_headers(stored), media_type=stored.media_type)


def build_result_url(request: Request, public_base_url: str, file_name: str) -> str:
    """Return a result's URL below the public base, or where that is empty below the called one."""
    return f"{public_base_url or _called_url(request)}{RESULT_PATH}{file_name}"


def find_result_name(url: SourceUrl) -> str | None:
    """Return the file name in what looks like a result URL, of any server; else None.

    A proxy may have changed scheme, host, port and the path before it. The name is enough: it
    cannot be guessed, and a client that knows one may have the result.
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


def _headers(stored: StoredResult) -> dict[str, str]:
    return {
        "Content-Length": str(stored.size_bytes),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
