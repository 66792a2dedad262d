"""The credit of one request: held before any work, then captured once or released."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from uuid import uuid4

from service.api.run_to_end import run_to_end
from service.state import Hold, State

_logger: Final = logging.getLogger(__name__)


class Charge:
    """What a request costs; nothing where `hold` is None, metering being off."""

    def __init__(self, state: State, hold: Hold | None) -> None:
        self._state = state
        self._hold = hold

    async def capture(self) -> None:
        """Take the held credit for good.

        Raises:
            HoldReleased: it was given back before; the image must not be delivered.
        """
        if self._hold is not None:
            await run_to_end(partial(self._state.credits.capture, self._hold))

    async def release(self) -> None:
        """Give the credit back. After a capture it changes nothing: the ledger sees to that."""
        if self._hold is None:
            return
        try:
            await run_to_end(partial(self._state.credits.release, self._hold))
        except Exception:
            # The request's own outcome stands; the state's sweep gives the credit back later.
            _logger.exception("a credit on hold could not be released")


@asynccontextmanager
async def hold_credit(state: State, key_id: int, *, metering: bool) -> AsyncIterator[Charge]:
    """A credit on hold for the time of the block. It is released when the block raises.

    The hold's id is made here: a client may send the same X-Request-Id twice.

    Raises:
        InsufficientApiCredits: the balance is too low.
    """
    hold = None
    if metering:
        take = partial(state.credits.hold, key_id, str(uuid4()))
        hold = await run_to_end(take, state.credits.release)
    charge = Charge(state, hold)
    try:
        yield charge
    except BaseException:
        await charge.release()
        raise
