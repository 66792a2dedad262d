"""The credit of one request: held before any work, then captured once or released."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal
from uuid import uuid4

from service.api.run_to_end import run_to_end
from service.logs import event
from service.state import Hold, State

CreditEvent = Literal["held", "captured", "released"]
OnCredit = Callable[[CreditEvent], None]
"""Told of each credit whose state has changed for good."""

_logger: Final = logging.getLogger(__name__)


def ignore_credit(_: CreditEvent) -> None:
    """The `on_credit` of who counts nothing."""


class Charge:
    """What a request costs; nothing where `hold` is None, metering being off."""

    def __init__(
        self, state: State, hold: Hold | None, on_credit: OnCredit = ignore_credit
    ) -> None:
        self._state = state
        self._hold = hold
        self._on_credit = on_credit

    async def capture(self) -> None:
        """Take the held credit for good.

        Raises:
            HoldReleased: it was given back before; the image must not be delivered.
        """
        if self._hold is not None:
            await run_to_end(partial(self._state.credits.capture, self._hold))
            self._on_credit("captured")

    async def release(self) -> None:
        """Give the credit back. After a capture it changes nothing: the ledger sees to that."""
        if self._hold is None:
            return
        try:
            if await run_to_end(partial(self._state.credits.release, self._hold)):
                self._on_credit("released")
        except Exception:
            # The request's own outcome stands; the state's sweep gives the credit back later.
            told = event("release_failed")
            _logger.exception("a credit on hold could not be released", extra=told)


@asynccontextmanager
async def hold_credit(
    state: State, key_id: int, *, metering: bool, on_credit: OnCredit = ignore_credit
) -> AsyncIterator[Charge]:
    """A credit on hold for the time of the block. It is released when the block raises.

    The hold's id is made here: a client may send the same X-Request-Id twice.

    Raises:
        InsufficientApiCredits: the balance is too low.
    """
    hold = None
    if metering:
        take = partial(state.credits.hold, key_id, str(uuid4()))
        hold = await run_to_end(take, state.credits.release)
        on_credit("held")
    charge = Charge(state, hold, on_credit)
    try:
        yield charge
    except BaseException:
        await charge.release()
        raise
