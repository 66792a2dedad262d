"""The bodies of requests and responses, from which the OpenAPI document is generated.

Endpoints check requests by themselves, in the contract's words and order: these classes describe.
"""

from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from upscaled.errors import InternalError, InvalidAuthToken, RateLimitExceeded, ServiceError
from upscaled.fetch.url import MAX_URL_CHARACTERS
from upscaled.state.job_rows import JOB_STATES, StoredJob
from upscaled_models.registry import split_strength

BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
"""The OpenAPI content of a response that is a file."""

UPSCALE_PATH: Final = "/v1/upscale"
RESULT_PATH: Final = "/public/result/"

ErrorCode = StrEnum(  # type: ignore[misc]  # its members are the errors that there are
    "ErrorCode",
    {kind.error_code.upper(): kind.error_code for kind in ServiceError.__subclasses__()},
)


class Scale(IntEnum):
    """Factor by which the result is wider and higher than the image."""

    X2 = 2
    X4 = 4


class UpscaleUpload(BaseModel):
    """An image as a file. A form with `image_url` in place of `image` is accepted too."""

    image: bytes = Field(description="The encoded image: its bytes decide what format it is")
    scale: Scale


class UpscaleByUrl(BaseModel):
    """An image that the server fetches. The texts "2" and "4" are accepted as `scale`, too."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"image_url": "https://example.com/photo.jpg", "scale": 4}}
    )

    image_url: str = Field(max_length=MAX_URL_CHARACTERS, json_schema_extra={"format": "uri"})
    scale: Scale


class _Response(BaseModel, extra="forbid"):
    """A body that has these fields and no others."""


class Upscaled(_Response):
    """URL of the result."""

    result_url: str = Field(
        examples=["https://example.com/public/result/6f5ab457-6f35-466d-b309-7a95d5b95a70.jpg"]
    )


class Estimate(_Response):
    """The answer to a dry run."""

    credits: int = Field(description="The price", examples=[1])
    width: int = Field(description="Width of the result in pixels", examples=[2048])
    height: int = Field(description="Height of the result in pixels", examples=[1536])
    media_type: str = Field(description="Of the result", examples=["image/jpeg"])
    models: list[str] = Field(
        description="The model that would make it. Two, where compression artefacts or noise in "
        "the pixels decide: that for a harmed picture first. Empty until a worker has started"
    )
    denoise: float | None = Field(
        description="The strength of denoising, where the request gives one"
    )
    seconds: float | None = Field(
        description="Expected in a worker, without the wait for one; null until one is ready"
    )


class Error(_Response):
    """The body of every response that is no success."""

    error: str = Field(description="A short text for people")
    error_code: ErrorCode = Field(description="A code for programs")


class Credits(BaseModel, extra="allow"):
    """The balance of an API key. Older clients read it as `creditsRemaining`, which is there too.

    That name is not declared: generators make one of the two, and their clients do not compile.
    """

    credits_remaining: int = Field(examples=[42])


class Live(_Response):
    """Liveness of the process."""

    status: Literal["ok"]


class Ready(_Response):
    """Readiness for a request sent now."""

    status: Literal["ready"]


class Model(_Response):
    """A model that a request may name."""

    name: str
    native_scale: int
    scales: list[Scale]
    licence: str
    bits: Literal[16, 32] = Field(description="Bits of each weight in the file")
    source: Literal["default", "official", "user"]
    same_as: str | None = Field(
        description="The model whose file it is, where the name is a second one"
    )
    denoise: bool = Field(description="Whether `X-Upscale-Denoise` may set its strength")
    auto_scales: list[Scale] = Field(description="Scales at which `auto` may choose it")
    seconds_per_megapixel: dict[str, float | None] = Field(
        description="Per megapixel of input, by scale, on this server; null until measured"
    )


class AutoChoice(_Response):
    """Model that `auto` chooses for pictures up to a size."""

    model: str
    tempered_with: str | None = Field(description="The faithful model that it is mixed with")
    most_input_px: int | None = Field(description="Null: pictures of any size")
    most_input_px_16_bits: int | None = Field(description="The same for 16 bits a channel")
    harmed_only: bool = Field(
        description="For pictures with compression artefacts or noise, and for no others"
    )


class ModelList(_Response):
    """The models that are present, and by scale those that `auto` chooses from, best first."""

    models: list[Model]
    auto: dict[str, list[AutoChoice]]


JobStatus = StrEnum("JobStatus", {state.upper(): state for state in JOB_STATES})  # type: ignore[misc]


class Job(_Response):
    """An upscale that was accepted to be run later. Times are RFC 3339, in UTC."""

    id: str
    status: JobStatus
    scale: Scale
    model: str | None = Field(
        description="The model that made the result; before, the one that the request named"
    )
    denoise: float | None = Field(
        description="The strength of denoising, where the request asked for one"
    )
    created_at: datetime
    ended_at: datetime | None = Field(description="Null until it has ended")
    tiles_done: int = Field(description="Of the attempt under way")
    tiles_total: int | None = Field(description="Null until known")
    remaining_s: float | None = Field(
        description="Estimate for the network, from its begin on; null before, after the end, and "
        "where another front end runs the job"
    )
    result_url: str | None = Field(description="Where the result of a job is that succeeded")
    expires_at: datetime | None = Field(description="Until when the result is there")
    error: Error | None = Field(description="Why a job failed")


class JobPage(_Response):
    """Jobs of an API key, the newest first."""

    jobs: list[Job]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null at the end")


def describe_errors(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these errors, by status, with an example of each body."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        response = responses.setdefault(
            kind.status,
            {
                "model": Error,
                "description": HTTPStatus(kind.status).phrase,
                "content": {"application/json": {"examples": {}}},
            },
        )
        body = {"error": kind.default_text, "error_code": kind.error_code}
        response["content"]["application/json"]["examples"][kind.error_code] = {"value": body}
    return responses


def describe_job(
    job: StoredJob,
    tiles: tuple[int, int | None],
    *,
    base_url: str,
    lifetime_s: int,
    remaining_s: float | None = None,
) -> Job:
    """Return the body that says how a job is.

    Args:
        tiles: done, and in all.
        lifetime_s: of a job and its result, from its end on.
        remaining_s: expected of the network; None where it is not known, or the job has ended.
    """
    result_url = expires_at = error = None
    if job.result is not None and job.ended_at_s is not None:
        result_url = f"{base_url}{RESULT_PATH}{job.result.file_name}"
        expires_at = format_time(job.ended_at_s + lifetime_s)
    if job.error_code is not None:
        error = Error(error=job.error_text or "", error_code=ErrorCode(job.error_code))
    named, denoise = split_strength(job.order.model)
    return Job(
        id=job.id,
        status=job.state,
        scale=Scale(job.order.scale),
        model=job.result_model or named or None,
        denoise=denoise,
        created_at=format_time(job.created_at_s),
        ended_at=None if job.ended_at_s is None else format_time(job.ended_at_s),
        tiles_done=tiles[0],
        tiles_total=tiles[1],
        remaining_s=None if remaining_s is None else round(remaining_s, 2),
        result_url=result_url,
        expires_at=expires_at,
        error=error,
    )


def format_time(time_s: float) -> datetime:
    """Return a time as bodies give it: in UTC, to the millisecond."""
    return datetime.fromtimestamp(round(time_s, 3), UTC)


KEY_ERRORS: Final = describe_errors(InvalidAuthToken, RateLimitExceeded, InternalError)
"""The errors of every endpoint that needs an API key."""
