"""Bill one credit for each delivered image: hold it before any work, then capture or release it."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar
from uuid import uuid4

from upscaled.api.cancellation import run_to_end
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.errors import InsufficientApiCredits
from upscaled.logs import event
from upscaled.state import ApiKey, DatabaseFailed, Hold, PaidResult, State
from upscaled.state.ledger import IMAGE_PRICE

RETRIES_AFTER_S: Final = (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)
"""Waits before the tries of a step: a database server that is restarted is back within seconds."""
FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0

T = TypeVar("T")

_logger: Final = logging.getLogger(__name__)


class Charge:
    """The cost of one request; none where `hold` is None, metering being off.

    captured: credits that were captured.
    """

    def __init__(self, state: State, hold: Hold | None, metrics: Metrics) -> None:
        self._state = state
        self._hold = hold
        self._metrics = metrics
        self.captured = 0

    async def capture(self, paid: PaidResult | None = None) -> None:
        """Capture the held credit, and record the stored result that it pays for.

        Raises:
            HoldReleased: it was given back before; the image must not be delivered.
            DatabaseFailed: the same; whether it was captured is unknown; `release` settles that.
        """
        if self._hold is None:
            return
        await try_often(partial(self._state.credits.capture, self._hold, paid))
        self.captured = IMAGE_PRICE
        self._metrics.note_credit("captured")

    async def release(self) -> None:
        """Give the credit back, also a captured one whose image was not delivered.

        Where that fails it is tried again until the database works.
        """
        if self._hold is None:
            return
        try:
            give_back = asyncio.to_thread(self._state.credits.give_back_or_retry, self._hold)
            if await run_to_end(give_back):
                self._metrics.note_credit("released")
        except Exception as error:  # noqa: BLE001  (the request's own outcome stands)
            fields = event("release_failed", hold_id=self._hold.request_id)
            _logger.warning("a credit could not be released yet: %s", error, extra=fields)


async def try_often(step: Callable[[], T], *, within_s: float = math.inf) -> T:
    """Run a blocking step, again where the connection to the database was lost.

    DatabaseFailed of the last try goes on: the step may have been done or not.

    Args:
        within_s: no further try begins later; a try at a server that hangs takes long by itself.
    """
    give_up_at_s = time.monotonic() + within_s
    for wait_s in RETRIES_AFTER_S:
        try:
            return await run_to_end(asyncio.to_thread(step))
        except DatabaseFailed as error:
            if not error.is_connection_lost or time.monotonic() + wait_s > give_up_at_s:
                raise
            await asyncio.sleep(wait_s)
    return await run_to_end(asyncio.to_thread(step))


@asynccontextmanager
async def hold_credit(
    state: State, metrics: Metrics, key_id: int, *, metering: bool, hold_id: str | None = None
) -> AsyncIterator[Charge]:
    """Hold a credit for the time of the block, and release it when the block raises.

    Args:
        hold_id: made by the server for this one hold; None: a new one. Not the request's id, since
            a client may send the same X-Request-Id twice.

    Raises:
        InsufficientApiCredits: the balance is too low.
    """
    hold = None
    if metering:
        take = asyncio.to_thread(state.credits.hold, key_id, hold_id or str(uuid4()))
        hold = await run_to_end(
            take, lambda held: asyncio.to_thread(state.credits.give_back_or_retry, held)
        )
        metrics.note_credit("held")
    charge = Charge(state, hold, metrics)
    try:
        yield charge
    except BaseException:
        await charge.release()
        raise


async def release_pending_credits(state: State, metrics: Metrics) -> None:
    """Give back the credits whose release failed, with exponential backoff, until cancelled."""
    failures = 0
    while True:
        await asyncio.sleep(pause_before_retry_s(failures))
        pending = len(state.credits.pending)
        if pending == 0:
            continue
        retried = await asyncio.to_thread(state.credits.retry_pending)
        if retried.failure is None:
            failures = 0
            fields = event("pending_released", pending=pending, released=retried.released)
            _logger.info("credits whose release had failed were released", extra=fields)
        else:
            failures += 1
            fields = event("release_failed", pending=pending, failures=failures)
            text = "credits whose release failed could not be given back yet: %s"
            _logger.warning(text, retried.failure, extra=fields)
        for _ in range(retried.released):
            metrics.note_credit("released")


def pause_before_retry_s(failures: int) -> float:
    """Return the wait before the next try, after so many failures in a row."""
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 30))


def price(key: ApiKey, settings: Settings) -> int:
    """Return the credits that an upscale would cost, or raise InsufficientApiCredits."""
    credits = IMAGE_PRICE if settings.metering else 0
    if key.balance < credits:
        raise InsufficientApiCredits
    return credits
