"""POST /v1/upscale: read one image, have it upscaled by a worker, and deliver the result."""

import asyncio
import time
from dataclasses import dataclass
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
from upscaled.api.memory import ImageResponse, Share, max_bodies
from upscaled.api.progress import Progress
from upscaled.api.request.accept import wants_image
from upscaled.api.request.reader import UpscaleParameters, read_parameters
from upscaled.api.routes.results import build_result_url, find_result_name
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.config import MAX_OUTPUT_SIDE_PX, MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, ResolutionTooHigh
from upscaled.fetch.url import parse_url
from upscaled.image.header import read_header
from upscaled.image.output import decide_output
from upscaled.image.types import Header
from upscaled.pool.executor import UpscaleRequest
from upscaled.state import ApiKey, OpenedResult, PaidResult
from upscaled.upscale.result import Result, Timings

_RESPONSE_HEADERS: Final[dict[str, Any]] = {
    "Server-Timing": {
        "description": "Milliseconds in queue, decode, network and encode",
        "required": True,
        "schema": {"type": "string"},
    },
    MODEL_HEADER: {
        "description": "The model that made the image",
        "required": True,
        "schema": {"type": "string"},
    },
    TEMPERED_HEADER: {
        "description": "The faithful model that the result was mixed with; absent where it was not",
        "required": False,
        "schema": {"type": "string"},
    },
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
        upscaling = _Upscaling(request, context, record, key, share, progress)
        with record.timing("receive"):
            async with share.arriving():
                parameters = await read_parameters(request, context.settings, share)
        async with (
            watch_client(request.receive) as client,
            hold_credit(
                context.state, context.metrics, key.id, metering=context.settings.metering
            ) as charge,
        ):
            result = await client.run(upscaling.upscale(parameters))
            response = await upscaling.deliver(result, client, charge)
    response.headers["Server-Timing"] = format_server_timing(result.timings)
    response.headers[MODEL_HEADER] = result.model
    if result.tempered_with:
        response.headers[TEMPERED_HEADER] = result.tempered_with
    return response


@dataclass(frozen=True, slots=True)
class _Upscaling:
    """One request on its way from parameters to a response."""

    request: Request
    context: Context
    record: AccessRecord
    key: ApiKey
    share: Share
    progress: Progress

    async def upscale(self, parameters: UpscaleParameters) -> Result:
        """Read the source and its header, then have the executor upscale it."""
        async with self.share.arriving():
            source, header = await self._read_source(parameters)
        output = decide_output(
            header,
            parameters.scale,
            keeps_depth=self.context.settings.deep_png,
            max_side_px=MAX_OUTPUT_SIDE_PX,
        )
        work = UpscaleRequest(
            self.record.request_id,
            parameters.scale,
            header.width_px,
            header.height_px,
            output,
            self.progress.note_tile,
            key_id=self.key.id,
            model=parameters.model,
        )
        self.progress.note_queued(self.context.executor.expected_s(work))
        queued_s = time.perf_counter()
        result = await self.context.executor.upscale(source, work)
        self.record.note_result(queued_s, result)
        return result

    async def _read_source(self, parameters: UpscaleParameters) -> tuple[bytes, Header]:
        """Return the image's bytes and what its header says, within the limits on size."""
        source = parameters.image
        if source is None:
            with self.record.timing("fetch"):
                source = await self._fetch(parameters.image_url or "")
        self.record.scale = parameters.scale
        self.record.requested_model = parameters.model or None
        self.record.source = "upload" if parameters.image is not None else "url"
        self.record.source_bytes = len(source)
        header = await asyncio.to_thread(read_header, source, self.context.settings.formats)
        self.record.note_header(header)
        check_size(header, parameters.scale, self.context.settings)
        return source, header

    async def _fetch(self, image_url: str) -> bytes:
        """Fetch an image; our own results come from the store: some clients chain two calls."""
        file_name = find_result_name(parse_url(image_url))
        if file_name:
            async with self.context.state.results.open(file_name) as own:
                if own is not None:
                    return await self._read_own(own)
        return await self.context.fetcher.fetch(image_url, self.share)

    async def _read_own(self, own: OpenedResult) -> bytes:
        if own.stored.size_bytes > self.context.settings.max_file_bytes:
            raise FileSizeTooLarge(detail=f"an own result of {own.stored.size_bytes} bytes")
        self.share.take(own.stored.size_bytes)
        return b"".join([chunk async for chunk in own.chunks])

    async def deliver(self, result: Result, client: Client, charge: Charge) -> Response:
        """Capture the credit and return the image, or the URL that it is stored under."""
        if not wants_image(", ".join(self.request.headers.getlist("accept"))):
            return await self._deliver_url(result, client, charge)
        client.raise_if_disconnected()
        await charge.capture()
        return ImageResponse(result.data, result.media_type, self.context.unsent, self.key.id)

    async def _deliver_url(self, result: Result, client: Client, charge: Charge) -> Response:
        """Store the result; it stays only if it is paid for and the client is still connected."""
        results = self.context.state.results
        with self.record.timing("store"):
            store = results.store(result.data, result.media_type)
            file_name = await run_to_end(store, results.delete)
        try:
            client.raise_if_disconnected()
            await charge.capture(PaidResult(file_name, result.media_type))
        except BaseException:
            await run_to_end(results.delete(file_name))
            raise
        self.context.metrics.note_stored(len(result.data))
        url = build_result_url(self.request, self.context.settings.public_base_url, file_name)
        return JSONResponse({"result_url": url})


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
