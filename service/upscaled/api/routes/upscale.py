"""POST /v1/upscale: the way of one image through the front end."""

import asyncio
import time
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api.auth import admit
from upscaled.api.available_models import MODEL_HEADER, TEMPERED_HEADER
from upscaled.api.billing import Charge, hold_credit
from upscaled.api.cancellation import Client, run_to_end, watch_client
from upscaled.api.context import Context, context_of
from upscaled.api.memory import ImageResponse, Share, max_bodies
from upscaled.api.progress import Progress
from upscaled.api.request.accept import wants_image
from upscaled.api.request.reader import Asked, read_asked
from upscaled.api.routes.results import build_result_url, find_result_name
from upscaled.api.telemetry.access_log import facts_of
from upscaled.config import MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import FileSizeTooLarge, InvalidParameter, ResolutionTooHigh
from upscaled.fetch.url import UnusableUrl, parse_url
from upscaled.image.header import read_header
from upscaled.image.types import Header
from upscaled.pool.executor import StageTimes, Upscaled, UpscaleRequest
from upscaled.state import PaidResult


async def answer_upscale(request: Request) -> Response:
    """The contract's order of checks, each cheaper than the next."""
    context = context_of(request)
    api_key = await admit(request)
    context.unread.check(api_key.id)
    with (
        context.board.show(api_key.id, facts_of(request).request_id) as progress,
        context.budget.share(api_key.id, max_bodies(context.settings, api_key.balance)) as share,
    ):
        with facts_of(request).timing("receive"):
            async with share.arriving():
                asked = await read_asked(request, context.settings, share)
        metering, on_credit = context.settings.metering, context.metrics.note_credit
        async with (
            watch_client(request.receive) as client,
            hold_credit(
                context.state, api_key.id, metering=metering, on_credit=on_credit
            ) as charge,
        ):
            work = _upscale(request, asked, share, progress, api_key.id)
            upscaled = await client.unless_gone(work)
            response = await _deliver(request, upscaled, client, charge, api_key.id)
    response.headers["Server-Timing"] = format_server_timing(upscaled.times)
    response.headers[MODEL_HEADER] = upscaled.model
    if upscaled.tempered_with:
        response.headers[TEMPERED_HEADER] = upscaled.tempered_with
    return response


async def _upscale(
    request: Request, asked: Asked, share: Share, progress: Progress, key_id: int
) -> Upscaled:
    """Source bytes, then what their header tells, then the work behind the boundary."""
    context, facts = context_of(request), facts_of(request)
    async with share.arriving():
        source, header = await _read_source(request, asked, share)
    work = UpscaleRequest(
        facts.request_id,
        asked.scale,
        header.width_px,
        header.height_px,
        progress.note_tile,
        is_deep=header.is_deep and (header.has_alpha or context.settings.deep_png),
        key_id=key_id,
        model=asked.model,
    )
    progress.await_turn(context.executor.expected_s(work))
    admitted_s = time.perf_counter()
    upscaled = await context.executor.upscale(source, work)
    facts.note_work(admitted_s, upscaled.times)
    facts.model, facts.engine = upscaled.model, upscaled.engine or None
    facts.tempered_with = upscaled.tempered_with or None
    facts.result_bytes = len(upscaled.data)
    facts.result_width_px, facts.result_height_px = upscaled.width_px, upscaled.height_px
    return upscaled


async def _read_source(request: Request, asked: Asked, share: Share) -> tuple[bytes, Header]:
    """The source's bytes and its header, within the limits on size."""
    context, facts = context_of(request), facts_of(request)
    source = asked.image
    if source is None:
        with facts.timing("fetch"):
            source = await _load_source(context, asked.image_url or "", share)
    facts.scale = asked.scale
    facts.requested_model = asked.model or None
    facts.source = "upload" if asked.image is not None else "url"
    facts.source_bytes = len(source)
    header = await asyncio.to_thread(read_header, source, context.settings.formats)
    facts.width_px, facts.height_px, facts.format = header.width_px, header.height_px, header.format
    judge_size(header, asked.scale, context.settings)
    return source, header


async def _load_source(context: Context, image_url: str, share: Share) -> bytes:
    """Our own results come from the store, not over the network: some clients chain two calls."""
    file_name = find_result_name(parse_url(image_url))
    stored = await asyncio.to_thread(context.state.results.find, file_name) if file_name else None
    if stored is None:
        return await context.sources.fetch(image_url, share)
    if stored.size_bytes > context.settings.max_file_bytes:
        raise FileSizeTooLarge(detail=f"an own result of {stored.size_bytes} bytes")
    share.take(stored.size_bytes)
    try:
        return await asyncio.to_thread(stored.path.read_bytes)
    except FileNotFoundError:
        raise UnusableUrl(detail="an own result that expired just now") from None


async def _deliver(
    request: Request, upscaled: Upscaled, client: Client, charge: Charge, key_id: int
) -> Response:
    if not wants_image(", ".join(request.headers.getlist("accept"))):
        return await _deliver_url(request, upscaled, client, charge)
    client.raise_if_gone()
    await charge.capture()
    unread = context_of(request).unread
    return ImageResponse(upscaled.data, upscaled.media_type, unread, key_id)


async def _deliver_url(
    request: Request, upscaled: Upscaled, client: Client, charge: Charge
) -> Response:
    """The result stays stored only if it is paid for and somebody is there to hear of it."""
    context = context_of(request)
    results = context.state.results
    store = partial(results.store, upscaled.data, upscaled.media_type)
    with facts_of(request).timing("store"):
        file_name = await run_to_end(store, results.delete)
    try:
        client.raise_if_gone()
        await charge.capture(PaidResult(file_name, upscaled.media_type))
    except BaseException:
        await run_to_end(partial(results.delete, file_name))
        raise
    context.metrics.note_stored(len(upscaled.data))
    url = build_result_url(request, context.settings.public_base_url, file_name)
    return JSONResponse({"result_url": url})


def format_server_timing(times: StageTimes) -> str:
    """The `Server-Timing` header's value, in milliseconds."""
    return ", ".join(
        f"{stage};dur={seconds * 1000:.1f}"
        for stage, seconds in (
            ("queue", times.queue_s),
            ("decode", times.decode_s),
            ("network", times.network_s),
            ("encode", times.encode_s),
        )
    )


def judge_size(header: Header, scale: int, settings: Settings) -> None:
    """
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
