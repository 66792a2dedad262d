"""POST /v1/upscale: read one image, have it upscaled by a worker, and deliver the result."""

import asyncio
import time
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled import errors
from upscaled.api import schemas
from upscaled.api.available_models import MODEL_HEADER, MODEL_PARAMETER, TEMPERED_HEADER
from upscaled.api.billing import Charge, hold_credit
from upscaled.api.cancellation import Client, run_to_end, watch_client
from upscaled.api.dependencies import AdmittedKey, AppContext, Context, Record
from upscaled.api.memory import Share, max_bodies
from upscaled.api.progress import Progress
from upscaled.api.request.accept import wants_image
from upscaled.api.request.reader import UpscaleParameters, read_parameters
from upscaled.api.routes.results import build_result_url, find_result_name
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.api.unsent import ImageResponse
from upscaled.config import MAX_OUTPUT_SIDE_PX, MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, ResolutionTooHigh
from upscaled.fetch.url import parse_url
from upscaled.image.header import read_header
from upscaled.image.output import decide_output
from upscaled.image.types import Header
from upscaled.pool.executor import UpscaleRequest
from upscaled.state import ApiKey, PaidResult
from upscaled.upscale.result import Result, Timings

_RESPONSE_HEADERS: Final[dict[str, Any]] = {
    name: {"description": description, "required": is_required, "schema": {"type": "string"}}
    for name, description, is_required in (
        ("Server-Timing", "Milliseconds in queue, decode, network and encode", True),
        (MODEL_HEADER, "The model that made the image", True),
        (
            TEMPERED_HEADER,
            "The faithful model that the result was mixed with; absent where it was not",
            False,
        ),
    )
}
# FastAPI would read the body before it solves dependencies, so before the key is checked.
_OPENAPI: Final[dict[str, Any]] = {
    "parameters": [MODEL_PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/UpscaleUpload"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/UpscaleByUrl"}},
        },
    },
}

router = APIRouter()


# The contract: one slash behind the path is the same path. Some clients join URLs so.
@router.post(schemas.UPSCALE_PATH + "/", include_in_schema=False)
@router.post(
    schemas.UPSCALE_PATH,
    operation_id="upscale",
    summary="Upscale one image",
    response_model=schemas.Upscaled,
    response_description="The image, or where it is",
    responses={
        200: {
            "headers": _RESPONSE_HEADERS,
            "content": {"image/jpeg": schemas.BINARY, "image/png": schemas.BINARY},
        },
        **schemas.KEY_ERRORS,
        **schemas.describe_errors(
            errors.InvalidRequestBody,
            errors.MissingParameter,
            errors.InvalidParameter,
            errors.UnsupportedContentType,
            errors.MalformedImage,
            errors.UnsupportedImageFormat,
            errors.FileSizeTooLarge,
            errors.ResolutionTooHigh,
            errors.InsufficientApiCredits,
        ),
    },
    openapi_extra=_OPENAPI,
)
async def upscale(
    request: Request, context: AppContext, record: Record, key: AdmittedKey
) -> Response:
    """Take one image through the contract's checks, each cheaper than the next, to its result."""
    context.unsent.check(key.id)
    with (
        context.progress.track(key.id, record.request_id) as progress,
        context.budget.share(key.id, max_bodies(context.settings, key.balance)) as share,
    ):
        with record.timing("receive"):
            async with share.arriving():
                parameters = await read_parameters(request, context.settings, share)
        async with (
            watch_client(request.receive) as client,
            hold_credit(
                context.state, context.metrics, key.id, metering=context.settings.metering
            ) as charge,
        ):
            work = _upscale(context, record, key, parameters, share, progress)
            result = await client.run(work)
            if wants_image(", ".join(request.headers.getlist("accept"))):
                client.raise_if_disconnected()
                await charge.capture()
                response: Response = ImageResponse(
                    result.data, result.media_type, context.unsent, key.id
                )
            else:
                file_name = await _store(context, record, result, client, charge)
                url = build_result_url(request, context.settings.public_base_url, file_name)
                response = JSONResponse({"result_url": url})
    response.headers["Server-Timing"] = format_server_timing(result.timings)
    response.headers[MODEL_HEADER] = result.model
    if result.tempered_with:
        response.headers[TEMPERED_HEADER] = result.tempered_with
    return response


async def _upscale(
    context: Context,
    record: AccessRecord,
    key: ApiKey,
    parameters: UpscaleParameters,
    share: Share,
    progress: Progress,
) -> Result:
    """Read the source and its header, then have the executor upscale it."""
    async with share.arriving():
        source = parameters.image
        if source is None:
            with record.timing("fetch"):
                source = await _fetch(context, parameters.image_url or "", share)
        record.scale = parameters.scale
        record.requested_model = parameters.model or None
        record.source = "upload" if parameters.image is not None else "url"
        record.source_bytes = len(source)
        header = await asyncio.to_thread(read_header, source, context.settings.formats)
        record.note_header(header)
        check_size(header, parameters.scale, context.settings)
    output = decide_output(
        header,
        parameters.scale,
        keeps_depth=context.settings.deep_png,
        max_side_px=MAX_OUTPUT_SIDE_PX,
    )
    work = UpscaleRequest(
        record.request_id,
        parameters.scale,
        header.width_px,
        header.height_px,
        output,
        progress.note_tile,
        key_id=key.id,
        model=parameters.model,
    )
    progress.note_queued(context.executor.expected_s(work))
    queued_s = time.perf_counter()
    result = await context.executor.upscale(source, work)
    record.note_result(queued_s, result)
    return result


async def _fetch(context: Context, image_url: str, share: Share) -> bytes:
    """Fetch an image; our own results come from the store: some clients chain two calls."""
    if file_name := find_result_name(parse_url(image_url)):
        async with context.state.results.open(file_name) as own:
            if own is not None:
                size_bytes = own.stored.size_bytes
                if size_bytes > context.settings.max_file_bytes:
                    raise FileSizeTooLarge(detail=f"an own result of {size_bytes} bytes")
                share.take(size_bytes)
                return b"".join([chunk async for chunk in own.chunks])
    return await context.fetcher.fetch(image_url, share)


async def _store(
    context: Context, record: AccessRecord, result: Result, client: Client, charge: Charge
) -> str:
    """Store the result; it stays only if it is paid for and the client is still connected."""
    results = context.state.results
    with record.timing("store"):
        file_name = await run_to_end(results.store(result.data, result.media_type), results.delete)
    try:
        client.raise_if_disconnected()
        await charge.capture(PaidResult(file_name, result.media_type))
    except BaseException:
        await run_to_end(results.delete(file_name))
        raise
    context.metrics.note_stored(len(result.data))
    return file_name


def check_size(header: Header, scale: int, settings: Settings) -> None:
    """Check an image's size by its header, before any pixel is decoded.

    Raises:
        InvalidParameter: a side under 64 px, whatever the other one is.
        ResolutionTooHigh: a side over the limit of this scale.
    """
    if min(header.width_px, header.height_px) < MIN_INPUT_SIDE_PX:
        raise InvalidParameter(
            f"Image too small: at least {MIN_INPUT_SIDE_PX}x{MIN_INPUT_SIDE_PX} pixels"
        )
    max_side_px = settings.max_input_side_px(scale)
    if max(header.width_px, header.height_px) > max_side_px:
        raise ResolutionTooHigh(
            f"Image resolution too high: at most {max_side_px}x{max_side_px} pixels "
            f"for scale {scale}"
        )


def format_server_timing(timings: Timings) -> str:
    """Return the value of the `Server-Timing` header, in milliseconds."""
    return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in timings.stages())
