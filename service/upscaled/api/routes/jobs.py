"""The jobs of an API key: `GET /v1/jobs`, and `GET` and `DELETE /v1/jobs/{job_id}`."""

import asyncio
import uuid
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from upscaled.api import schemas
from upscaled.api.cancellation import run_to_end
from upscaled.api.dependencies import AppContext, Context, JobsKey, find_base_url
from upscaled.api.idempotency import REPLAYED_HEADER, WEBHOOK_HEADER
from upscaled.api.paging import format_cursor, read_job_position
from upscaled.api.request.choices import RESPOND_ASYNC
from upscaled.api.request.reader import UpscaleParameters
from upscaled.api.upscale_steps import read_checked_header
from upscaled.errors import (
    InternalError,
    InvalidAuthToken,
    InvalidParameter,
    NotFound,
    ServiceError,
)
from upscaled.fetch.url import UnusableUrl, check_source_url, parse_url
from upscaled.state import ApiKey
from upscaled.state.idempotency import RequestKey
from upscaled.state.job_rows import JOB_STATES, JobChange, JobOrder, JobState, StoredJob

JOBS_PATH: Final = "/v1/jobs"
JOB_PATH: Final = JOBS_PATH + "/{job_id}"
MAX_PAGE_JOBS: Final = 100
_KEY_ERRORS: Final = schemas.describe_errors(InvalidAuthToken, InternalError)  # not counted
_ERRORS: Final = {**_KEY_ERRORS, **schemas.describe_errors(NotFound)}

router = APIRouter()


@router.head(JOBS_PATH, include_in_schema=False)
@router.get(
    JOBS_PATH,
    operation_id="list_jobs",
    summary="The jobs of this API key, the newest first",
    response_description="A page of jobs",
    description="Those that ended longer ago than their lifetime are gone.",
    responses={**_KEY_ERRORS, **schemas.describe_errors(InvalidParameter)},
)
async def list_jobs(
    request: Request,
    context: AppContext,
    key: JobsKey,
    status: Annotated[str, Query(description="Only jobs in this state")] = "",
    cursor: Annotated[str, Query(description="`next_cursor` of the page before")] = "",
    limit: Annotated[str, Query(description=f"Jobs on a page, 1 to {MAX_PAGE_JOBS}")] = "20",
) -> schemas.JobPage:
    """List the key's jobs that ended less than their results' lifetime ago, at no cost in rate."""
    read_page = partial(
        context.state.jobs.list_page,
        key.id,
        state=_parse_state(status),
        after=read_job_position(cursor),
        limit=_parse_limit(limit),
    )
    page = await asyncio.to_thread(read_page)
    return schemas.JobPage(
        jobs=[_describe(request, context, job) for job in page.jobs],
        next_cursor=page.next_position and format_cursor(page.next_position),
    )


@router.head(JOB_PATH, include_in_schema=False)
@router.get(
    JOB_PATH,
    operation_id="get_job",
    summary="How far a job is, and where its result is",
    description="Another key's job, and one whose lifetime is over, is not found.",
    response_description="The job",
    responses=_ERRORS,
)
async def get_job(request: Request, context: AppContext, key: JobsKey, job_id: str) -> schemas.Job:
    """Return one job of the key. Another key's, or one that is no longer kept, is NotFound."""
    job = await asyncio.to_thread(context.state.jobs.find, key.id, _parse_id(job_id))
    if job is None:
        raise NotFound
    return _describe(request, context, job)


@router.delete(
    JOB_PATH,
    operation_id="cancel_job",
    summary="Cancel a job that has not ended",
    description="Its credit is released, and its work stops at the next tile. A job that has "
    "ended stays as it is.",
    response_description="The job as it is now",
    responses=_ERRORS,
)
async def cancel_job(
    request: Request, context: AppContext, key: JobsKey, job_id: str
) -> schemas.Job:
    """Cancel a job of the key. Another key's, or one that is no longer kept, is NotFound."""
    cancelling = asyncio.to_thread(context.state.jobs.cancel, key.id, _parse_id(job_id))
    change = await run_to_end(cancelling)
    if change is None:
        raise NotFound
    if change.is_changed:
        await context.job_runner.note_cancelled(change.job)
    return _describe(request, context, change.job)


async def accept_job(
    request: Request,
    context: Context,
    key: ApiKey,
    parameters: UpscaleParameters,
    request_key: RequestKey | None,
) -> Response:
    """Check an upscale, store its source, and add it as a job; once for each request key.

    Raises:
        RateLimitExceeded: the key has too many jobs that have not ended.
        InsufficientApiCredits: the balance is too low.
        InvalidParameter: the address of its webhook cannot be called.
        ServiceError: what is wrong with an upload, as without a job.
    """
    webhook_url = await asyncio.to_thread(_read_webhook_url, request, context, key)
    source_name = image_url = None
    if parameters.image is None:
        image_url = str(parse_url(parameters.image_url or ""))
    else:
        await _check_job_limit(context, key, request_key)
        await read_checked_header(parameters.image, parameters.scale, context.settings)
        store = context.state.job_sources
        source_name = await run_to_end(store.store(parameters.image), store.delete)
    order = JobOrder(
        source_name,
        image_url,
        parameters.scale,
        parameters.model,
        parameters.choice,
        find_base_url(request, context.settings.public_base_url),
        webhook_url,
    )
    change = await _submit(context, key, order, request_key)
    headers = {"Location": f"{JOBS_PATH}/{change.job.id}", "Preference-Applied": RESPOND_ASYNC}
    if not change.is_changed:
        headers[REPLAYED_HEADER] = "true"
    elif change.job.is_metered:
        context.metrics.note_credit("held")
    context.job_runner.wake()
    body = _describe(request, context, change.job)
    return JSONResponse(body.model_dump(mode="json"), 202, headers)


async def _check_job_limit(context: Context, key: ApiKey, request_key: RequestKey | None) -> None:
    """Check name, job limit and credit before an upload is read, as without a job, and stored."""
    settings, jobs = context.settings, context.state.jobs
    check = partial(jobs.check_job_limit, key.id, is_metered=settings.metering)
    await asyncio.to_thread(
        check, max_unfinished=settings.max_jobs_per_key, request_key=request_key
    )


async def _submit(
    context: Context, key: ApiKey, order: JobOrder, request_key: RequestKey | None
) -> JobChange:
    """Add the job, and delete its stored source where none came of it."""
    submit = partial(
        context.state.jobs.submit,
        key.id,
        order,
        is_metered=context.settings.metering,
        max_unfinished=context.settings.max_jobs_per_key,
        request_key=request_key,
    )
    is_needless = False
    try:
        change = await run_to_end(asyncio.to_thread(submit))
        is_needless = not change.is_changed
        return change
    except ServiceError:
        is_needless = True
        raise
    finally:  # after any other failure there may be a job: the sweep checks
        if order.source_name is not None and is_needless:
            await run_to_end(context.state.job_sources.delete(order.source_name))


def _describe(request: Request, context: Context, job: StoredJob) -> schemas.Job:
    """Return the body that says how a job is, with a result's URL as this request called us."""
    return schemas.describe_job(
        job,
        context.job_runner.tiles_of(job),
        base_url=find_base_url(request, context.settings.public_base_url),
        lifetime_s=context.settings.job_result_lifetime_s,
        remaining_s=context.job_runner.remaining_s_of(job),
    )


def _read_webhook_url(request: Request, context: Context, key: ApiKey) -> str | None:
    """Return the address to call when the job has ended; None where the request names none.

    Blocks. What the name leads to is checked at each connection.

    Raises:
        InvalidParameter: it is no URL, there are two, or the key has no secret to sign with.
    """
    urls = request.headers.getlist(WEBHOOK_HEADER)
    if not urls:
        return None
    try:
        url = check_source_url(_decode(urls[0]) if len(urls) == 1 else None)
    except UnusableUrl as error:
        text = f"{WEBHOOK_HEADER} must be one http or https URL without a user name"
        raise InvalidParameter(text, detail=error.detail) from None
    if not context.state.webhooks.has_secret(key.id):
        raise InvalidParameter(f"{WEBHOOK_HEADER} needs a secret, which this API key does not have")
    return url


def _decode(header: str) -> str:
    """Return a header's value as its client wrote it: in UTF-8, as curl sends it, or in Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _parse_state(text: str) -> JobState | None:
    if not text:
        return None
    if text not in JOB_STATES:
        raise InvalidParameter(f"status must be one of {', '.join(JOB_STATES)}")
    return text


def _parse_limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 1 <= limit <= MAX_PAGE_JOBS:
        raise InvalidParameter(f"limit must be 1 to {MAX_PAGE_JOBS}")
    return limit


def _parse_id(text: str) -> str:
    """Return the id of a job as it is stored; raise NotFound where no job has such an id."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFound from None
