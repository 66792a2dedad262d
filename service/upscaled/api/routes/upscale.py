"""POST /v1/upscale: read one image, have it upscaled by a worker, and deliver the result."""

import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from upscaled import errors
from upscaled.api import dependencies, idempotency, schemas, upscale_steps
from upscaled.api.billing import Charge, hold_credit, price
from upscaled.api.cancellation import Client, run_to_end, watch_client
from upscaled.api.memory import ImageResponse, MemoryShare, max_bodies
from upscaled.api.openapi import REQUEST, RESPONSES
from upscaled.api.progress import Progress
from upscaled.api.request import choices
from upscaled.api.request.reader import UpscaleParameters, has_options, read_parameters, wants_image
from upscaled.api.reuse import Reuse, prepare_reuse
from upscaled.api.routes.jobs import accept_job
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.pool.executor import UpscaleRequest
from upscaled.state import ApiKey, PaidResult
from upscaled.state.idempotency import Reservation, StoredAnswer
from upscaled.upscale.result import Result

router = APIRouter()


# The contract: one slash behind the path is the same path. Some clients join URLs so.
@router.post(schemas.UPSCALE_PATH + "/", include_in_schema=False)
@router.post(
    schemas.UPSCALE_PATH,
    operation_id="upscale",
    summary="Upscale one image",
    response_model=schemas.Upscaled,
    response_description="The image, or where it is",
    responses=RESPONSES,
    openapi_extra=REQUEST,
)
async def upscale(
    request: Request,
    context: dependencies.AppContext,
    record: dependencies.Record,
    key: dependencies.UpscalingKey,
    until_sent: dependencies.UntilSent,
) -> Response:
    """Check a request in the contract's order, cheap checks first, and upscale its image."""
    has_choices = has_options(request.headers)
    is_dry = has_choices and choices.may_be_dry_run(request.headers.getlist(choices.DRY_RUN_HEADER))
    is_job = has_choices and not is_dry and choices.prefers_async(request.headers.getlist("prefer"))
    if is_job:
        dependencies.require_scope(key, "jobs")
    context.unsent.check(key.id)
    # Progress is tracked only under an id that the client chose: another is known too late.
    is_watchable = request.headers.get("x-request-id") == record.request_id
    tracked = context.relay.track(key.id, record.request_id) if is_watchable else nullcontext()
    max_at_once = max_bodies(context.settings, key.balance)
    async with tracked as progress:
        with context.budget.share(key.id, max_at_once) as share:
            with record.timing("receive"):
                async with share.arriving():
                    parameters = await read_parameters(request, context.settings, share)
            call = _UpscaleCall(
                request, context, record, key, parameters, share, progress, until_sent
            )
            if is_dry:
                return await call.estimate()
            return await call.answer(is_job=is_job)


@dataclass(frozen=True, slots=True)
class _MadeResult:
    """A result, and whether it was computed or reused.

    reuse: the stored results of the key, None where results are not reused. is_reused: the result
    was made for an earlier request.
    """

    result: Result
    reuse: Reuse | None
    is_reused: bool


@dataclass(frozen=True, slots=True)
class _UpscaleCall:
    """One request whose body has been read; `progress` is None where nothing can watch it."""

    request: Request
    context: dependencies.Context
    record: AccessRecord
    key: ApiKey
    parameters: UpscaleParameters
    share: MemoryShare
    progress: Progress | None
    until_sent: AsyncExitStack

    async def answer(self, *, is_job: bool) -> Response:
        """Accept the request as a job, replay its first answer, or upscale its image."""
        request = self.request
        is_image = wants_image(", ".join(request.headers.getlist("accept")))
        kind: idempotency.AnswerKind = "job" if is_job else "image" if is_image else "url"
        request_key = None
        if idempotency.IDEMPOTENCY_HEADER in request.headers:
            request_key = await idempotency.read_request_key(
                request, self.key.id, self.parameters, kind
            )
        if is_job:
            self.record.handling = "job"
            with self.record.timing("store"):
                return await accept_job(
                    request, self.context, self.key, self.parameters, request_key
                )
        if request_key is None:
            return await self._deliver(None, is_image=is_image)
        async with idempotency.reserve(self.context.state, request_key) as outcome:
            if isinstance(outcome, StoredAnswer):
                return await self._replay(outcome, is_image=is_image)
            return await self._deliver(outcome, is_image=is_image)

    async def estimate(self) -> Response:
        """Check the image as for an upscale, and predict what that would cost and give.

        Raises:
            InvalidParameter: the header that asks for it is neither `true` nor `false`.
        """
        choices.parse_dry_run_header(self.request.headers.getlist(choices.DRY_RUN_HEADER))
        context = self.context
        credits = price(self.key, context.settings)
        _, work = await self._read_work()
        self.record.handling = "dry run"
        return JSONResponse(upscale_steps.estimate(work, credits, context.executor).model_dump())

    async def _deliver(self, reservation: Reservation | None, *, is_image: bool) -> Response:
        """Upscale the image and deliver it; with a reservation so that it can be replayed."""
        context, is_paid = self.context, reservation is not None and reservation.is_paid
        async with (
            watch_client(self.request.receive) as client,
            hold_credit(
                context.state,
                context.metrics,
                self.key.id,
                metering=context.settings.metering and not is_paid,
                hold_id=reservation.request_id if reservation else None,
            ) as charge,
        ):
            made = await client.run(self._upscale(is_stored_only=not is_image))
            result, file_name = made.result, None
            if is_image and reservation is None and made.reuse is None:
                client.raise_if_disconnected()
                await charge.capture()
            else:
                file_name = await self._store(result, client, charge)
        self.record.credits = charge.captured
        headers = upscale_steps.describe_result(result, is_reused=made.is_reused)
        if made.reuse is not None and file_name is not None:
            await made.reuse.remember(file_name, result)
        if reservation is not None and file_name is not None:
            answer = StoredAnswer(file_name, result.media_type, headers)
            await idempotency.record_answer(context.state, reservation, answer)
        response: Response
        if is_image or file_name is None:
            response = ImageResponse(result.data, result.media_type, context.unsent, self.key.id)
        else:
            response = self._send_url(file_name)
        response.headers.update(headers)
        return response

    async def _read_work(self) -> tuple[bytes, UpscaleRequest]:
        """Return the source, and the request to the executor that its header makes."""
        context, record, parameters = self.context, self.record, self.parameters
        async with self.share.arriving():
            source = parameters.image
            if source is None:
                with record.timing("fetch"):
                    source = await upscale_steps.fetch_source(
                        parameters.image_url or "",
                        self.share,
                        context.fetcher,
                        context.state.result_stores,
                        context.settings,
                    )
            record.source = "upload" if parameters.image is not None else "url"
            record.note_request(parameters.scale, parameters.model, len(source))
            header = await upscale_steps.read_checked_header(
                source, parameters.scale, context.settings
            )
            record.note_header(header)
        work = upscale_steps.build_request(
            record.request_id,
            header,
            context.settings,
            key_id=self.key.id,
            scale=parameters.scale,
            model=parameters.model,
            choice=parameters.choice,
            source_bytes=len(source),
        )
        if self.progress is not None:
            work = replace(work, on_tile=self.progress.note_tile)
        return source, work

    async def _upscale(self, *, is_stored_only: bool) -> _MadeResult:
        """Read an image, and have the executor upscale it, unless the result is stored.

        is_stored_only: the answer is the URL of the result: its bytes are not needed here.
        """
        context, record = self.context, self.record
        source, work = await self._read_work()
        reuse = None
        if context.settings.reuse_results:
            reuse = await prepare_reuse(
                context.state, context.executor, context.settings, source, work
            )
            if (stored := await reuse.find(self.share)) is not None:
                record.handling = "reuse"
                record.note_result(time.perf_counter(), stored)
                return _MadeResult(stored, reuse, is_reused=True)
        if is_stored_only:
            work = upscale_steps.order_storing(work, context.state.results, context.settings)
        if self.progress is not None:
            self.progress.note_queued(context.executor.expect(work).seconds)
        queued_s = time.perf_counter()
        result = await context.executor.upscale(source, work)
        record.note_result(queued_s, result)
        return _MadeResult(result, reuse, is_reused=False)

    async def _store(self, result: Result, client: Client, charge: Charge) -> str:
        """Store the result; it stays only if it is paid for and the client is still connected."""
        results = self.context.state.results
        with self.record.timing("store"):
            file_name = await upscale_steps.store_result(result, results)
        try:
            client.raise_if_disconnected()
            await charge.capture(PaidResult(file_name, result.media_type))
        except BaseException:
            await run_to_end(results.delete(file_name))
            raise
        self.context.metrics.note_stored(result.size_bytes)
        return file_name

    async def _replay(self, answer: StoredAnswer, *, is_image: bool) -> Response:
        """Return the answer that the request got first; an image is streamed from the store.

        Raises:
            RequestInProgress: its result expired just now; a retry makes it again.
        """
        self.record.handling = "replay"
        response = self._send_url(answer.file_name)
        if is_image:
            opening = self.context.state.results.open(answer.file_name)
            opened = await self.until_sent.enter_async_context(opening)
            if opened is None:
                raise errors.RequestInProgress
            response = StreamingResponse(
                opened.chunks,
                headers={"Content-Length": str(opened.stored.size_bytes)},
                media_type=answer.media_type,
            )
        response.headers.update(answer.headers)
        response.headers[idempotency.REPLAYED_HEADER] = "true"
        return response

    def _send_url(self, file_name: str) -> Response:
        base_url = dependencies.find_base_url(self.request, self.context.settings.public_base_url)
        return JSONResponse({"result_url": f"{base_url}{schemas.RESULT_PATH}{file_name}"})
