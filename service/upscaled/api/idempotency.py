"""Answer a request that is sent again under its `Idempotency-Key` as it was answered first."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from starlette.requests import Request

from upscaled.api.cancellation import cancel, run_to_end
from upscaled.api.request.choices import describe_header
from upscaled.api.request.reader import UpscaleParameters
from upscaled.errors import InvalidParameter
from upscaled.fetch.url import MAX_URL_CHARACTERS
from upscaled.image.output import NO_CHOICE
from upscaled.logs import event
from upscaled.state import DatabaseFailed, State
from upscaled.state.idempotency import RENEW_EVERY_S, RequestKey, Reservation, StoredAnswer

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotent-Replayed"
WEBHOOK_HEADER: Final = "X-Upscale-Webhook"
"""The header that names a job's webhook, which a request that is sent again has to repeat."""
WEBHOOK_PARAMETER: Final = describe_header(
    WEBHOOK_HEADER,
    "With `Prefer: respond-async`: the address to call when the job has ended",
    {"type": "string", "format": "uri", "maxLength": MAX_URL_CHARACTERS},
)
MAX_NAME_CHARACTERS: Final = 255
IDEMPOTENCY_PARAMETER: Final = describe_header(
    IDEMPOTENCY_HEADER,
    "The client's name for this request: sent again within 24 hours, it gets the first answer and "
    "is not charged again",
    {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS},
)

REPLAYED_DESCRIPTION: Final[dict[str, Any]] = {
    "description": "`true` where the request was answered before, and this is that answer",
    "required": False,
    "schema": {"type": "string", "enum": ["true"]},
}
"""The header of an answer, as OpenAPI describes it."""

AnswerKind = Literal["url", "image", "job"]

_logger: Final = logging.getLogger(__name__)


async def read_request_key(
    request: Request, key_id: int, parameters: UpscaleParameters, kind: AnswerKind
) -> RequestKey:
    """Return what the client named its request by `IDEMPOTENCY_HEADER`, with a fingerprint of it.

    Raises:
        InvalidParameter: the name is empty, longer than `MAX_NAME_CHARACTERS` or not of printable
            ASCII, or there are two.
    """
    names = request.headers.getlist(IDEMPOTENCY_HEADER)
    (name,) = names if len(names) == 1 else ("",)
    is_printable = name.isascii() and name.isprintable()
    if not is_printable or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidParameter(
            f"Idempotency-Key must be 1 to {MAX_NAME_CHARACTERS} printable ASCII characters"
        )
    webhooks = request.headers.getlist(WEBHOOK_HEADER) if kind == "job" else []
    fingerprint = await asyncio.to_thread(_fingerprint, parameters, kind, webhooks)
    return RequestKey(key_id, name, fingerprint)


@asynccontextmanager
async def reserve(
    state: State, request_key: RequestKey
) -> AsyncIterator[Reservation | StoredAnswer]:
    """Reserve a request for the block, which answers it, or yield the answer that it got.

    A block that raises gives the reservation up: the request failed, and may be sent again. An
    answer whose result has expired is made again, uncharged.

    Raises:
        InvalidParameter, RequestInProgress: as of `IdempotencyKeys.reserve`.
    """

    async def abandon(outcome: Reservation | StoredAnswer) -> None:
        if isinstance(outcome, Reservation):
            await asyncio.to_thread(state.idempotency.abandon, outcome)

    reserving = asyncio.to_thread(state.idempotency.reserve, request_key)
    outcome = await run_to_end(reserving, abandon)
    if isinstance(outcome, StoredAnswer):
        if await state.results.find(outcome.file_name):
            yield outcome
            return
        again = asyncio.to_thread(state.idempotency.reserve_again, request_key, outcome)
        outcome = await run_to_end(again, abandon)
    renewing = asyncio.create_task(_renew(state, outcome))
    try:
        yield outcome
    except BaseException:
        await _try(run_to_end(abandon(outcome)))
        raise
    finally:
        await cancel(renewing)


async def record_answer(state: State, reservation: Reservation, answer: StoredAnswer) -> None:
    """Record a request's answer; where that fails, the ledger has what was paid and delivered."""
    recording = asyncio.to_thread(state.idempotency.complete, reservation, answer)
    await _try(run_to_end(recording))


def _fingerprint(parameters: UpscaleParameters, kind: AnswerKind, webhooks: list[str]) -> str:
    image = parameters.image
    content = None if image is None else hashlib.sha256(image).hexdigest()
    parts: list[object] = [kind, parameters.scale, parameters.model, content, parameters.image_url]
    if parameters.choice != NO_CHOICE:
        parts.append(parameters.choice.changes())
    parts += webhooks
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _renew(state: State, reservation: Reservation) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        await _try(asyncio.to_thread(state.idempotency.renew, reservation))


async def _try(step: Coroutine[Any, Any, None]) -> None:
    """Run a step whose failure does not change the request's outcome; log the failure."""
    try:
        await step
    except DatabaseFailed as error:
        fields = event("idempotency_key_not_updated")
        _logger.warning("an idempotency key could not be updated: %s", error, extra=fields)
