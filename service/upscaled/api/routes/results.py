"""GET /public/result/{file_name}: serve a stored result."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response, StreamingResponse

from upscaled.api import schemas
from upscaled.api.dependencies import AppContext
from upscaled.errors import InternalError, NotFound
from upscaled.state import OpenedResult, StoredResult

router = APIRouter()


async def _find(context: AppContext, file_name: str) -> StoredResult:
    for results in context.state.result_stores:
        if stored := await results.find(file_name):
            return stored
    raise NotFound


async def _open(context: AppContext, file_name: str) -> AsyncIterator[OpenedResult]:
    """Hold the result open until the response is sent."""
    for results in context.state.result_stores:
        async with results.open(file_name) as opened:
            if opened is not None:
                yield opened
                return
    raise NotFound


@router.head(schemas.RESULT_PATH + "{file_name}", include_in_schema=False)
async def head_result(stored: Annotated[StoredResult, Depends(_find)]) -> Response:
    return Response(headers=_headers(stored), media_type=stored.media_type)


@router.get(
    schemas.RESULT_PATH + "{file_name}",
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


def _headers(stored: StoredResult) -> dict[str, str]:
    return {
        "Content-Length": str(stored.size_bytes),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
