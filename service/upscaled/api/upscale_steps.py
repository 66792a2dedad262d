"""The steps of an upscale: its source, its header, its result. Requests and jobs share most.

The source and its header make the request for the executor; a dry run is answered by an estimate of
that request, which is not sent. The replica that makes a result stores it itself where it can, else
this front end does.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from upscaled.api import schemas
from upscaled.api.cancellation import run_to_end
from upscaled.api.memory import MemoryShare
from upscaled.api.request.choices import DENOISE_HEADER, MODEL_HEADER, TEMPERED_HEADER
from upscaled.api.reuse import REUSED_HEADER
from upscaled.api.schemas import RESULT_PATH
from upscaled.bucket.endpoint import find_endpoint
from upscaled.config import MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, ResolutionTooHigh
from upscaled.fetch.client import FetchClient
from upscaled.fetch.url import SourceUrl, parse_url
from upscaled.image.formats.table import read_header
from upscaled.image.output import MAX_OUTPUT_SIDE_PX, OutputChoice, decide_output
from upscaled.image.types import Header
from upscaled.pool.executor import Executor, StoreOrder, UpscaleRequest
from upscaled.state import OpenedResult
from upscaled.state.results import Results
from upscaled.upscale.result import Result
from upscaled_models.registry import split_strength


async def fetch_source(
    image_url: str,
    share: MemoryShare,
    fetcher: FetchClient,
    stores: Iterable[Results],
    settings: Settings,
) -> bytes:
    """Fetch an image; raises as `FetchClient.fetch`.

    Our own results come from the store: some clients chain two calls.
    """
    if file_name := find_result_name(parse_url(image_url)):
        for results in stores:
            async with results.open(file_name) as own:
                if own is not None:
                    return await _read_own(own, share, settings)
    return await fetcher.fetch(image_url, share)


async def _read_own(own: OpenedResult, share: MemoryShare, settings: Settings) -> bytes:
    size_bytes = own.stored.size_bytes
    if size_bytes > settings.max_file_bytes:
        raise FileSizeTooLarge(detail=f"an own result of {size_bytes} bytes")
    share.count(size_bytes)
    return b"".join([chunk async for chunk in own.chunks])


def find_result_name(url: SourceUrl) -> str | None:
    """Return the file name in what looks like a result URL, of any server; else None.

    A proxy may have changed scheme, host, port and the path before it. The name is enough: it
    cannot be guessed, and a client that has one may read the result.
    """
    _, mark, file_name = url.path.rpartition(RESULT_PATH)
    return file_name if mark else None


async def read_checked_header(source: bytes, scale: int, settings: Settings) -> Header:
    """Return what an image's header says; raise as `read_header` and `check_size` do."""
    header = await asyncio.to_thread(read_header, source, settings.formats)
    check_size(header, scale, settings)
    return header


def build_request(
    request_id: str,
    header: Header,
    settings: Settings,
    *,
    key_id: int,
    scale: int,
    model: str,
    choice: OutputChoice,
    source_bytes: int,
) -> UpscaleRequest:
    """Return what the executor is to do with an image; its output is decided here."""
    output = decide_output(
        header,
        scale,
        keeps_depth=settings.deep_png,
        max_side_px=MAX_OUTPUT_SIDE_PX,
        choice=choice,
    )
    return UpscaleRequest(
        request_id,
        scale,
        header.width_px,
        header.height_px,
        output,
        key_id=key_id,
        model=model,
        source_bytes=source_bytes,
    )


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


def estimate(work: UpscaleRequest, credits: int, executor: Executor) -> schemas.Estimate:
    """Return what an accepted request would give, and its price."""
    expectation = executor.expect(work)
    _, denoise = split_strength(work.model)
    return schemas.Estimate(
        credits=credits,
        width=work.output.width_px,
        height=work.output.height_px,
        media_type=work.output.media_type,
        models=[split_strength(name)[0] for name in expectation.models],
        denoise=denoise,
        seconds=round(expectation.seconds, 3) if executor.is_ready() else None,
    )


def order_storing(work: UpscaleRequest, results: Results, settings: Settings) -> UpscaleRequest:
    """Return the request with an order to store its result in the bucket, if there is a bucket.

    A replica that cannot carry the order out returns the bytes instead.
    """
    reserved = results.reserve(work.output.media_type)
    if reserved is None:
        return work
    endpoint = find_endpoint(settings.s3_endpoint)
    return replace(work, store=StoreOrder(results.location, endpoint, *reserved))


async def store_result(result: Result, results: Results) -> str:
    """Store a result unless a replica has done so, and return its name; or raise InternalError.

    If it is cancelled while storing, it deletes the result again.
    """
    if result.stored_as:
        return result.stored_as
    return await run_to_end(results.store(result.data, result.media_type), results.delete)


def describe_result(result: Result, *, is_reused: bool) -> dict[str, str]:
    """Return the headers of an answer that say how its result was made."""
    stages_ms = [f"{stage};dur={took_s * 1000:.1f}" for stage, took_s in result.timings.stages()]
    headers = {"Server-Timing": ", ".join(stages_ms), MODEL_HEADER: result.model}
    if result.denoise is not None:
        headers[DENOISE_HEADER] = str(result.denoise)
    if result.tempered_with:
        headers[TEMPERED_HEADER] = result.tempered_with
    if is_reused:
        headers[REUSED_HEADER] = "true"
    return headers
